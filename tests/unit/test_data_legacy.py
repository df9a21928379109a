"""`--legacy true` against the port's rules written again, plainly, a token at a time."""

import random
from itertools import chain
from pathlib import Path

import jieba
import numpy as np
import pytest
from opencc import OpenCC

from data_tools.convert import main
from data_tools.converters import pretrain
from data_tools.feature_store import load_features, starts_of
from data_tools.features.legacy import LegacyMasker, LegacyUnits, further_negatives, masks_words
from data_tools.features.masking import Masking
from data_tools.features.pretrain import SampleTokens
from data_tools.features.sentence_pairs import Pairs
from data_tools.tokenization import WordPieceTokenizer
from tests.pretrain_corpus import CLS, MASK, SEP, SPECIAL, assert_share, original_ids, texts_of

TEXT = (
    "漢字轉換很有趣。\n東京都廳舍Tokyo站在線上。\n他來到了網易大廈。\n\n"
    "憂鬱的臺灣烏龜 JUMPED over。\n小明畢業於中國科學院計算所。\n"
)
WIKI = "".join(
    f'<doc id="{number}" url="x" title="y">\n{part}\n</doc>\n' for number, part in enumerate(TEXT.split("\n\n"))
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPieceTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("vocab"), unknown="")


def make_tokenizer(folder: Path, unknown: str) -> WordPieceTokenizer:
    """Every character of the text by itself and as a piece, but for unknown ones."""
    characters = sorted(set(OpenCC("t2s").convert(TEXT).lower()) - {"\n", " ", *unknown})
    path = folder / "vocab.txt"
    pieces = [f"##{character}" for character in characters]
    path.write_text("\n".join([*SPECIAL, *characters, "jump", *pieces, "##ed"]), encoding="utf-8")
    return WordPieceTokenizer(path, True)


def pieces_of(line: str, vocab: dict[str, int]) -> list[str]:
    """Words of jieba, in lower case, each cut greedily from its front as WordPiece does."""
    found = []
    for word in " ".join(jieba.lcut(OpenCC("t2s").convert(line))).lower().split():
        rest, cut = word, []
        while rest:
            names = (("##" if cut else "") + rest[:size] for size in range(len(rest), 0, -1))
            name = next((name for name in names if name in vocab), None)
            if name is None:
                cut = ["[UNK]"]
                break
            cut.append(name)
            rest = rest[len(name.removeprefix("##")) :]
        found += cut
    return found


def masked(
    ids: list[int], segs: list[int], budget: int, by_words: bool, numbers: list[float], others: list[int]
) -> tuple[list[int], dict[int, int]]:
    """(tokens, {place: id}) by the port's rules: from left to right, and no further than the budget."""
    ids, targets = list(ids), {}

    def hit(place: int, base: float) -> bool:
        targets[place] = ids[place]
        if numbers[place] > 0.2 * base:
            ids[place] = MASK
        elif numbers[place] > 0.1 * base:
            ids[place] = others[place]
        return len(targets) >= budget

    place = 0
    while place < len(ids):
        end = place + 1
        if by_words and segs[place] == 0:
            while segs[end] == 1:
                end += 1
            if numbers[place] <= 0.15 and any(hit(at, 0.15 if at == place else 1.0) for at in range(place, end)):
                break
        elif not by_words and ids[place] not in (CLS, SEP) and numbers[place] <= 0.15 and hit(place, 0.15):
            break
        place = end
    return ids, targets


def test_characters_inside_words_become_pieces(tmp_path):
    tokenizer = make_tokenizer(tmp_path, unknown="厅龟")
    lines = OpenCC("t2s").convert(TEXT).split("\n")[:3]
    ids, lengths, begins = LegacyUnits(tokenizer)(lines)
    expected = [pieces_of(line, tokenizer.vocab) for line in lines]
    tokens = list(tokenizer.vocab)
    assert [tokens[number] for number in ids] == [piece for pieces in expected for piece in pieces]
    assert lengths.tolist() == [len(pieces) for pieces in expected]
    assert begins[0].tolist() == ["##" not in tokens[number] for number in ids]
    assert "[UNK]" in expected[1] and "##京" in expected[1]


@pytest.mark.parametrize("by_words", [True, False])
def test_masks_are_those_of_the_rules(tokenizer, by_words):
    """The same random numbers, the same tokens and targets; texts that begin inside a word, and long rows, too."""
    rng, chooser = np.random.default_rng(1), random.Random(1)
    rows, segs = [], []
    for _ in range(400):
        texts = [[chooser.randrange(5, 40) for _ in range(chooser.choice((1, 3, 30, 250)))] for _ in range(2)]
        rows.append([CLS, *texts[0], SEP, *texts[1], SEP])
        inner = [[int(chooser.random() < 0.5) for _ in text] for text in texts]
        segs.append([-1, *inner[0], -1, *inner[1], -1])
    flat, seg = np.concatenate(rows).astype(np.int32), np.concatenate(segs)
    samples = SampleTokens(flat, (seg != 1)[None], seg >= 0, starts_of(np.array([len(row) for row in rows])), [1.0])
    made = LegacyMasker(tokenizer, Masking(), by_words)(samples, rng)
    again = np.random.default_rng(1)
    numbers, others = again.random(len(flat)), again.integers(1, len(tokenizer.vocab), len(flat))
    full = 0
    for row, own, begin in zip(rows, segs, samples.starts, strict=False):
        part = slice(begin, begin + len(row))
        budget = min(20, max(1, round(0.15 * len(row))))
        ids, targets = masked(row, own, budget, by_words, numbers[part].tolist(), others[part].tolist())
        assert made["input_ids"][part].tolist() == ids
        assert made["mlm_label"][part].tolist() == [targets.get(place, -1) for place in range(len(row))]
        full += len(targets) == 20
        if len(row) > 400 and not by_words and len(targets) == 20:
            assert max(targets) < 350  # nothing behind the twentieth
    assert full > 50


def test_what_follows_is_paired_once_more():
    """The first text of one with the first of the next, where that fits, else with the second; half a row at most."""
    rng, room = np.random.default_rng(4), 61
    lengths = tuple(rng.integers(1, 45, (2, 6000)))
    fits = sum(lengths) <= room
    lengths = tuple(of[fits] for of in lengths)
    begins = (np.arange(len(lengths[0])) * 100, np.arange(len(lengths[0])) * 100 + 50)
    random_next = rng.random(len(lengths[0])) < 0.5
    pairs = Pairs(begins, lengths, random_next, 0)
    made = further_negatives(pairs, room, np.random.default_rng(7))
    followers = np.flatnonzero(~random_next)
    order = followers[np.random.default_rng(7).permutation(len(followers))]
    expected = []
    buffers = [order[begin : begin + 1000] for begin in range(0, len(order), 1000)]
    for buffer in buffers:
        for place, number in enumerate(buffer):
            other = buffer[(place + 1) % len(buffer)]
            left = 0 if lengths[0][number] <= room // 2 else 1
            left_length = lengths[left][number]
            right = 0 if lengths[0][other] <= room - left_length else 1
            assert left_length + lengths[right][other] <= room
            expected.append((begins[left][number], left_length, begins[right][other], lengths[right][other]))
    found = list(zip(made.begins[0], made.lengths[0], made.begins[1], made.lengths[1], strict=True))
    assert found == expected and made.random_next.all()
    assert len(found) == len(followers) and len(buffers) == 3


def test_the_mode_is_drawn_once_for_a_run():
    draws = [masks_words(seed, Masking(masked_lm_prob=0.15)) for seed in range(2000)]
    assert_share(sum(draws), len(draws), 0.15)


@pytest.mark.parametrize("by_words", [True, False])
def test_a_run(tokenizer, tmp_path, monkeypatch, by_words):
    """From WikiExtractor's files to records under the port's names, of which two of three have random next ones."""
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki/wiki_00").write_text(40 * WIKI, encoding="utf-8")
    seed = next(seed for seed in range(100) if masks_words(seed, Masking()) == by_words)
    command = ["pretrain", "--input_file", str(tmp_path / "wiki"), "--vocab_file", str(tokenizer.vocab_file),
               "--legacy", "true", "--random_seed", str(seed), "--column_names", "ernie", "--max_seq_length", "48",
               "--dupe_factor", "6", "--output_dir"]  # fmt: skip
    main([*command, str(tmp_path / "out"), "--workers", "1"])
    features = load_features(tmp_path / "out")
    assert features.info["legacy"] == f"masks {'words' if by_words else 'tokens'}" and features.info["opencc"] == "t2s"
    lines = [
        [tokenizer.vocab[piece] for piece in pieces_of(line, tokenizer.vocab)] for line in TEXT.split("\n") if line
    ]
    written = " | ".join(" ".join(map(str, chain(*stream))) for stream in (lines[:3], lines[3:]))
    texts = texts_of(features)
    assert all(
        f" {' '.join(map(str, text))} " in f" {written} " for first, second, _ in texts for text in (first, second)
    )
    follow = sum(not random_next for _, _, random_next in texts)
    assert 0.15 < follow / len(texts) < 0.33  # and short documents have still more that are random
    assert (original_ids(features) > MASK).sum() > 5000
    counts = np.add.reduceat(features.tokens["mlm_label"] >= 0, features.starts[:-1])
    assert (counts <= np.clip(np.rint(0.15 * features.lengths), 1, 20)).all() and (counts == 0).any()
    if by_words:
        monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
        main([*command, str(tmp_path / "again"), "--workers", "2"])
        assert load_features(tmp_path / "again").info["content_sha256"] == features.info["content_sha256"]
