"""The levels of ERNIE's knowledge masking: what a unit is, and that units are drawn as often as they should be."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import jieba
import numpy as np
import pytest
from opencc import OpenCC
from transformers import BertTokenizer

from data_tools.convert import main
from data_tools.feature_store import FeatureSet
from data_tools.features.lexicon import Lexicon
from data_tools.features.simplify import converter
from data_tools.features.units import UnitOptions, UnitTokenizer, parse_levels
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from tests.pretrain_corpus import MASK, SPECIAL, WORDS, MadeCorpus, assert_share, convert, make_corpus, original_ids

LENGTH = 64
CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
ENTITIES = ("天地", "天地玄", "玄黄", "宇宙洪荒", "New York", "art", "月", "日月盈x9")
PHRASES = ("地玄黄", "洪荒日", "列张 art")
PLAIN = (*CHARACTERS, "new", "york", "art", "##y", "p", "##art", "x9", "##s", ",", "a")


@pytest.fixture(scope="module")
def vocab(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *PLAIN]), encoding="utf-8")
    return path


def entry_file(folder: Path, name: str, entries: tuple[str, ...]) -> Path:
    path = folder / name
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return path


def made_texts(count: int) -> list[str]:
    """Random strings of characters, words, blanks, and entries of the lists."""
    rng = np.random.default_rng(5)
    parts = [*CHARACTERS, *ENTITIES, *PHRASES, *("art ", " party", ", ", " a ", "x9s", "天\u200b地")]
    return ["".join(rng.choice(parts, rng.integers(1, 15))) for _ in range(count)]


def brute_force(text: str, entries: tuple[str, ...]) -> list[tuple[int, int]]:
    """Leftmost longest matches by one regular expression, which takes no part of a Latin word."""
    latin = "[a-zA-Z0-9]"
    patterns = [
        (f"(?<!{latin})" if re.match(latin, entry) else "") + entry + (f"(?!{latin})" if entry[-1].isascii() else "")
        for entry in sorted(entries, key=len, reverse=True)
    ]
    return [match.span() for match in re.finditer("|".join(patterns), text)]


def units_of_text(offsets: list[tuple[int, int]], pieces: list[str], groups: list[tuple[int, int]]) -> list[set[int]]:
    """The tokens of each unit: those of a group together, the pieces of any other word together."""
    found: dict[object, set[int]] = {}
    word = 0
    for number, ((start, _), piece) in enumerate(zip(offsets, pieces, strict=True)):
        group = next((span for span in groups if span[0] <= start < span[1]), None)
        word += not piece.startswith("##")
        found.setdefault(group or word, set()).add(number)
    return sorted(found.values(), key=min)


def units_of_begins(begins: np.ndarray) -> list[set[int]]:
    starts = [*np.flatnonzero(begins), len(begins)]
    return [set(range(*span)) for span in pairwise(starts)]


@pytest.fixture(scope="module")
def encoded(vocab, tmp_path_factory) -> tuple[list[str], list, list[np.ndarray]]:
    """Texts, what transformers makes of them, and where our units begin at each level."""
    folder, texts = tmp_path_factory.mktemp("lists"), made_texts(1500)
    options = UnitOptions(
        {"basic": 0.2, "phrase": 0.3, "entity": 0.5}, None, entry_file(folder, "phrases", PHRASES),
        entry_file(folder, "entities", ENTITIES),
    )  # fmt: skip
    units = UnitTokenizer(WordPieceTokenizer(vocab, True), options)
    ids, lengths, begins = units(texts)
    peer = BertTokenizer(vocab=str(vocab))(texts, add_special_tokens=False, return_offsets_mapping=True)
    assert ids.tolist() == [number for numbers in peer["input_ids"] for number in numbers]
    return texts, peer, np.split(begins, np.cumsum(lengths)[:-1], axis=1)


def test_units_are_those_of_brute_force(vocab, encoded):
    texts, peer, begins = encoded
    tokens = vocab.read_text(encoding="utf-8").split("\n")
    several = 0
    for text, ids, offsets, (basic, phrase, entity) in zip(
        texts, peer["input_ids"], peer["offset_mapping"], begins, strict=True
    ):
        pieces = [tokens[number] for number in ids]
        assert basic.all()
        phrases = brute_force(text, PHRASES)
        assert units_of_begins(phrase) == units_of_text(offsets, pieces, phrases), text
        entities = brute_force(text, ENTITIES)
        # An entity that takes the middle of a phrase, or an end, leaves the rest as units of their own.
        left = []
        for start, end in phrases:
            cuts = sorted({start, end, *(at for span in entities for at in span if start < at < end)})
            left += [span for span in pairwise(cuts)
                     if not any(first <= span[0] < last for first, last in entities)]  # fmt: skip
        expected = units_of_text(offsets, pieces, [*entities, *left])
        assert units_of_begins(entity) == expected, text
        several += sum(len(unit) > 1 for unit in expected)
    assert several > 2000


def test_words_of_a_segmenter_are_cut_by_entities_alone(shared_data, tmp_path):
    """Real text: the units of jieba's words but where an entity lies across them."""
    lines = (shared_data / "corpus/zh.txt").read_text(encoding="utf-8").split("\n")[:150]
    vocab, entities = (
        shared_data / "vocab/bert_chinese_vocab.txt",
        ("主教", "年6月", "教区宗座", "学院", "天主教河内总教区"),
    )
    options = UnitOptions({"phrase": 0.5, "entity": 0.5}, "jieba", None, entry_file(tmp_path, "entities", entities))
    _, lengths, begins = UnitTokenizer(WordPieceTokenizer(vocab, True), options)(lines)
    tokenizer, across = BertTokenizer(vocab=str(vocab)), 0
    peer = tokenizer(lines, add_special_tokens=False, return_offsets_mapping=True)
    parts = np.split(begins, np.cumsum(lengths)[:-1], axis=1)
    for line, ids, offsets, (phrase, entity) in zip(
        lines, peer["input_ids"], peer["offset_mapping"], parts, strict=True
    ):
        pieces = tokenizer.convert_ids_to_tokens(ids)
        borders = set(np.cumsum([0, *map(len, jieba.lcut(line))]).tolist())
        spans = [match.span() for match in re.finditer("|".join(sorted(entities, key=len, reverse=True)), line)]
        inside = {at for start, end in spans for at in range(start + 1, end)}
        across += sum(not {start, end} <= borders for start, end in spans)
        # Blanks are no tokens: a unit begins with the first token at or behind its border.
        for found, cuts in ((phrase, borders), (entity, (borders - inside) | {at for span in spans for at in span})):
            before, expected = -1, []
            for piece, (start, _) in zip(pieces, offsets, strict=True):
                expected.append(piece[:2] != "##" and any(at in cuts for at in range(before + 1, start + 1)))
                before = start
            assert (found == expected).all(), line
    assert across > 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), documents=300, most_sentences=30, most_words=9, most_pieces=3)


@pytest.fixture(scope="module")
def mixed(corpus, tmp_path_factory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("mixed") / "out"
    levels = {"basic": 0.35, "phrase": 0.65}
    return corpus.convert(folder, max_seq_length=LENGTH, dupe_factor=6, levels=levels, short_seq_prob=0.0)


def whole_of(corpus: MadeCorpus, features: FeatureSet) -> np.ndarray:
    """Of each sample whether all words are targets with all of their tokens in it, or with none."""
    targets, ids = features.tokens["mlm_label"] >= 0, original_ids(features)
    sample = np.repeat(np.arange(len(features)), features.lengths)
    usable = ids > MASK
    word = sample * (corpus.word.max() + 1) + corpus.word[ids]
    _, first, inverse, sizes = np.unique(word[usable], return_index=True, return_inverse=True, return_counts=True)
    chosen = np.bincount(inverse, targets[usable])
    parted = (chosen > 0) & (chosen < sizes)
    return np.bincount(sample[usable][first[parted]], minlength=len(features)) == 0


def test_a_level_is_drawn_for_each_sample(corpus, mixed):
    whole = whole_of(corpus, mixed)[mixed.lengths == LENGTH]
    # 10 single tokens of 64 part no word of up to 3 pieces in one of some thousand samples.
    assert len(whole) > 3000
    assert_share(whole.sum(), len(whole), 0.65)
    assert_share((whole[1:] & whole[:-1]).sum(), len(whole) - 1, 0.65**2)
    assert mixed.info["masking"] == {"basic": 0.35, "phrase": 0.65}


def test_targets_of_whole_words_in_figures(corpus, tmp_path):
    """15 % of the tokens as far as whole words have room for, the same all over the row, and 80/10/10 of them."""
    features = corpus.convert(tmp_path / "out", max_seq_length=LENGTH, dupe_factor=10, levels=WORDS, short_seq_prob=0.0)
    full = features.select(np.flatnonzero(features.lengths == LENGTH))
    labels, ids = (full.tokens[name].reshape(-1, LENGTH) for name in ("mlm_label", "input_ids"))
    targets = labels >= 0
    budget = round(0.15 * LENGTH)
    assert (targets.sum(axis=1) <= budget).all() and targets.sum(axis=1).mean() > 0.98 * budget
    usable = original_ids(full).reshape(-1, LENGTH) > MASK
    share = targets.sum() / usable.sum()
    for place in range(4, LENGTH - 4):  # at the ends words are cut, and a short word has room more often
        assert_share(targets[:, place].sum(), usable[:, place].sum(), share)
    total, masked, kept = targets.sum(), (ids == MASK) & targets, (ids == labels) & targets
    assert total > 30000
    for found, expected in ((masked, 0.8), (kept, 0.1), (targets & ~masked & ~kept, 0.1)):
        assert_share(found.sum(), total, expected)
    # Drawn for each token: neighbours of one word tell nothing about each other.
    together = targets[:, :-1] & targets[:, 1:]
    together &= corpus.word[np.where(targets, labels, 0)][:, :-1] == corpus.word[np.where(targets, labels, 0)][:, 1:]
    assert together.sum() > 5000
    assert_share((masked[:, :-1] & masked[:, 1:] & together).sum(), together.sum(), 0.64)


def test_ids_are_those_of_fine_tuning(shared_data, tmp_path):
    """No character is a ## piece at any level, though ERNIE's vocabulary has such pieces."""
    rows = (shared_data / "vocab/ernie1.0_vocab.txt").read_text(encoding="utf-8").split("\n")
    tokens = [row.split("\t")[0] for row in rows if row]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    lines = (shared_data / "corpus/zh.txt").read_text(encoding="utf-8").split("\n")[:300]
    (tmp_path / "zh.txt").write_text("\n".join(lines), encoding="utf-8")
    settings = {"levels": WORDS, "word_segmenter": "jieba", "dupe_factor": 1}
    features = convert(tmp_path / "zh.txt", tmp_path / "vocab.txt", tmp_path / "out", **settings)
    used = {tokens[number] for number in original_ids(features)}
    assert any(re.match("##[一-龥]", token) for token in tokens) and len(used) > 800
    assert not any(re.match("##[一-龥]", token) for token in used)


def test_traditional_text_becomes_simplified(tmp_path, monkeypatch):
    text = "漢字轉換。\n東京都廳。\n\n憂鬱的臺灣烏龜。\n龍馬。\n"
    for name, content in (("t.txt", text), ("s.txt", OpenCC("t2s").convert(text))):
        (tmp_path / name).write_text(content, encoding="utf-8")
    characters = sorted(set(text + OpenCC("t2s").convert(text)) - {"\n"})
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *characters]), encoding="utf-8")
    made = [convert(tmp_path / name, tmp_path / "vocab.txt", tmp_path / f"out{number}", opencc=opencc)
            for number, (name, opencc) in enumerate([("t.txt", "t2s"), ("s.txt", None), ("t.txt", None)])]  # fmt: skip
    digests = [features.info["content_sha256"] for features in made]
    assert digests[0] == digests[1] != digests[2] and made[0].info["opencc"] == "t2s"
    converter.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(UserError, match=r"opencc is not installed; pip install 'encoder-zoo\[opencc\]'"):
        convert(tmp_path / "t.txt", tmp_path / "vocab.txt", tmp_path / "none", opencc="t2s")
    assert not (tmp_path / "none").exists()


REFUSED = {
    "unknown level": ("--masking words", "--masking words: give one of basic, phrase, entity"),
    "twice": ("--masking basic=0.5 basic=0.5", "each once"),
    "no share": ("--masking basic phrase=0.5", "several with their"),
    "not one": ("--masking basic=0.5 phrase=0.6", "must add up to 1"),
    "negative": ("--masking basic=-1 phrase=2", "give one of"),
    "nan": ("--masking basic=nan phrase=0.5", "give one of"),
    "said twice": ("--masking phrase --do_whole_word_mask true", "is --masking phrase; give one of the two"),
    "phrases of tokens": ("--phrase_file LIST", "--phrase_file is for --masking phrase or entity"),
    "no entities": ("--masking entity", "--entity_file and --masking entity belong together"),
    "idle entities": ("--masking phrase --entity_file LIST", "--entity_file and --masking entity belong together"),
    "no file": ("--masking entity --entity_file none.txt", "none.txt: data file not found"),
    "legacy": ("--legacy true --masking phrase", "--legacy true has a masking of its own"),
    "legacy's opencc": ("--legacy true --opencc t2s", "--legacy true simplifies the text anyway"),
    "legacy's negatives": ("--legacy true --generate_neg_sample true", "makes random pairs in its own way"),
    "long": ("--skip_long true", "--skip_long has no use with --input_format text"),
    "names": ("--column_names ernie --dataset_format numpy", "--column_names has no use with --dataset_format numpy"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_flags_that_do_not_fit_are_refused(case, vocab, tmp_path):
    flags, message = REFUSED[case]
    entry_file(tmp_path, "list", ENTITIES)
    (tmp_path / "x.txt").write_text("天地\n玄黄\n\n宇宙\n", encoding="utf-8")
    words = [str(tmp_path / "list") if word == "LIST" else word for word in flags.split()]
    with pytest.raises(UserError, match=re.escape(message)):
        main(["pretrain", "--input_file", str(tmp_path / "x.txt"), "--vocab_file", str(vocab), "--output_dir",
              str(tmp_path / "out"), "--workers", "1", *words])  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "message"), [
    ("\n \n", "holds no entries"),
    ("天地\n玄\t12\n", "line 2: holds a control character"),
    ("天\0地\n", "line 1: holds a control character"),
    (b"\xff\xfe\n", "line 1: byte 0 is not UTF-8"),
])  # fmt: skip
def test_lists_that_are_none(tmp_path, content, message):
    (tmp_path / "list").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        Lexicon(tmp_path / "list")


def test_shares_of_levels_are_read(corpus, tmp_path):
    rounded = parse_levels(["basic=0.3333333", "phrase=0.6666666"])
    assert len(corpus.convert(tmp_path / "out", levels=rounded, dupe_factor=1)) > 100
    assert parse_levels(["phrase"]) == {"phrase": 1.0}
    assert parse_levels(["basic=0.1", "phrase=.2", "entity=0.7"]) == {"basic": 0.1, "phrase": 0.2, "entity": 0.7}
