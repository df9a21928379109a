"""Baidu's pretraining data read and written: the meaning of each field, shares of lists, negatives, refusals."""

import gzip
import hashlib
import re
from pathlib import Path

import jieba
import numpy as np
import pytest

from data_tools.convert import main
from data_tools.converters import pretrain
from data_tools.feature_store import FeatureSet
from data_tools.features import negatives
from data_tools.readers import baidu_lines, corpus
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from tests.baidu_files import MadeLines, make_lines, read_lines, write_lines
from tests.pretrain_corpus import MASK, SPECIAL, WORDS, assert_share, convert, make_corpus, original_ids, texts_of

LENGTH = 64
BAIDU, LIST = {"input_format": "baidu"}, {"input_format": "baidu_filelist"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> MadeLines:
    return make_lines(tmp_path_factory.mktemp("lines"), 700, (LENGTH - 3) // 2)


@pytest.fixture(scope="module")
def positives(tmp_path_factory) -> MadeLines:
    """Texts of up to a whole row: a pair of other lines may be too long."""
    return make_lines(tmp_path_factory.mktemp("positives"), 2501, (LENGTH - 3) // 2 + 8, label=1)


def read(made: MadeLines, path: Path, folder: Path, **settings) -> FeatureSet:
    return convert(path, made.vocab, folder, **{"max_seq_length": LENGTH, "dupe_factor": 1} | settings)


def parted_words(made: MadeLines, features: FeatureSet) -> np.ndarray:
    """Of each sample whether some word is a target in part."""
    targets, ids = features.tokens["mlm_label"] >= 0, original_ids(features)
    sample = np.repeat(np.arange(len(features)), features.lengths)
    usable = ids > MASK
    _, first, inverse, sizes = np.unique(
        sample[usable] * len(made.word) + made.word[ids[usable]], return_index=True, return_inverse=True,
        return_counts=True,
    )  # fmt: skip
    chosen = np.bincount(inverse, targets[usable])
    parted = (chosen > 0) & (chosen < sizes)
    return np.bincount(sample[usable][first[parted]], minlength=len(features)) > 0


@pytest.mark.parametrize("suffix", [".gz", ".txt"])
def test_lines_become_the_samples_they_say(made, tmp_path, suffix):
    file = write_lines(tmp_path / f"demo{suffix}", made.lines)
    features = read(made, file, tmp_path / "out", **BAIDU, dupe_factor=3, levels=WORDS)
    expected = {(tuple(first), tuple(second), 1 - label)
                for first, second, label in zip(made.first, made.second, made.label, strict=True)}  # fmt: skip
    found = [(tuple(first), tuple(second), random) for first, second, random in texts_of(features)]
    assert len(found) == 3 * len(expected) and set(found) == expected
    assert all(found[begin : begin + 700] != found[:700] for begin in (700, 1400))  # each pass in an order of its own
    assert not parted_words(made, features).any()
    counts = np.add.reduceat(features.tokens["mlm_label"] >= 0, features.starts[:-1])
    budgets = np.clip(np.rint(0.15 * features.lengths), 1, 20)
    assert (counts <= budgets).all() and counts.mean() > 0.9 * budgets.mean()
    info = features.info
    assert (info["masking"], info["counts"]["examples"], info["counts"]["random_next"]) == (
        WORDS, 700, 3 * made.label.count(0),
    )  # fmt: skip


def test_masking_by_tokens_parts_words(made, tmp_path):
    features = read(made, write_lines(tmp_path / "demo.gz", made.lines), tmp_path / "out", **BAIDU)
    assert parted_words(made, features).mean() > 0.6


def test_a_list_says_the_share_of_word_masking(made, tmp_path, monkeypatch):
    """Of each file; 1.1, as in Baidu's demo, is always. Paths as Baidu's reader takes them, or beside the list."""
    for name, lines in (
        ("always.gz", made.lines[:200]),
        ("never.gz", made.lines[200:400]),
        ("at_times.gz", made.lines[400:]),
    ):
        write_lines(tmp_path / name, lines)
    (tmp_path / "list").write_text(f"{tmp_path}/always.gz\t1.1\nelsewhere/never.gz\t0\n./at_times.gz\t0.3\n")
    monkeypatch.chdir(tmp_path)
    features = read(made, tmp_path / "list", tmp_path / "out", **LIST, dupe_factor=40, max_predictions_per_seq=8)
    line_of = {text[0]: number for number, text in enumerate(made.first)}
    line = np.array([line_of[first[0]] for first, _, _ in texts_of(features)])
    parted = parted_words(made, features)
    assert not parted[line < 200].any()
    by_tokens = parted[(line >= 200) & (line < 400)].mean()
    at_times = parted[line >= 400]
    assert by_tokens > 0.6 and len(at_times) == 300 * 40
    assert at_times.mean() == pytest.approx(0.7 * by_tokens, rel=0.05)
    assert features.info["masking"] == "as the list says" and features.info["source_files"] == 3


def test_negatives_are_half_and_pair_texts_of_one_buffer(positives, tmp_path, monkeypatch):
    monkeypatch.setattr(negatives, "BUFFER", 100)
    monkeypatch.setattr(baidu_lines, "CHUNK_LINES", 500)
    file = write_lines(tmp_path / "demo.gz", positives.lines)
    settings = {**BAIDU, "generate_neg_sample": True, "max_seq_length": 2 * LENGTH}
    features = read(positives, file, tmp_path / "out", **settings)
    assert len(features) == 2 * 2501 and features.scalars["next_sentence_label"].sum() == 2501
    line_of = {text[0]: number for texts in (positives.first, positives.second) for number, text in enumerate(texts)}
    partner = {}
    for first, second, random in texts_of(features):
        left, right = line_of[first[0]], line_of[second[0]]
        assert list(first) == positives.first[left] and list(second) == positives.second[right]
        assert (left != right) == bool(random)
        if random:
            partner[left] = right
    # Each lends its second text once, round a buffer of 100 lines of one chunk, and no line is left alone.
    assert sorted(partner) == sorted(partner.values()) == list(range(2501))
    sizes, left = [], set(partner)
    while left:
        ring, at = [], min(left)
        while at not in ring:
            ring.append(at)
            at = partner[at]
        left -= set(ring)
        sizes.append(len(ring))
        assert len({number // 500 for number in ring if number < 2500}) == 1
    assert sorted(sizes) == [100] * 24 + [101]


def test_negatives_that_are_too_long_lose_tokens(positives, tmp_path):
    file = write_lines(
        tmp_path / "demo.gz", [line for line in positives.lines if line.split(";")[0].count(" ") < LENGTH]
    )
    features = read(positives, file, tmp_path / "out", **BAIDU, generate_neg_sample=True)
    random = features.scalars["next_sentence_label"] == 1
    assert random.sum() * 2 == len(features) and features.info["counts"]["truncated"] > 100
    assert features.lengths.max() == LENGTH
    assert ((features.lengths == LENGTH) & random).sum() >= features.info["counts"]["truncated"]


def test_the_bytes_do_not_depend_on_the_workers(made, tmp_path, monkeypatch):
    monkeypatch.setattr(baidu_lines, "CHUNK_LINES", 100)
    monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
    file = write_lines(tmp_path / "demo.gz", made.lines)
    first, second = (
        read(made, file, tmp_path / f"{workers}", **BAIDU, workers=workers).info["content_sha256"] for workers in (1, 2)
    )
    assert first == second


def test_text_becomes_lines_and_these_the_samples_of_the_text(tmp_path, monkeypatch):
    """The lines hold the pairs that the samples made directly have, in the same order; masked whole words are whole."""
    text = make_corpus(tmp_path, documents=60, most_sentences=12, most_words=6, most_pieces=3)
    settings = {"max_seq_length": LENGTH, "dupe_factor": 2, "random_seed": 3}
    monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
    monkeypatch.setattr(corpus, "CHUNK_CHARACTERS", 4000)
    direct = text.convert(tmp_path / "direct", **settings, levels=WORDS)
    digests = []
    for workers, levels in ((1, ("basic=0.25", "phrase=0.75")), (2, ("phrase=0.75", "basic=0.25"))):
        folder = tmp_path / f"lines{workers}"
        command = ["pretrain", "--input_file", str(text.text), "--vocab_file", str(text.vocab), "--output_dir",
                   str(folder), "--dataset_format", "baidu", "--shards", "3", "--workers", str(workers), "--masking",
                   *levels, *(f"--{name}={value}" for name, value in settings.items())]  # fmt: skip
        main(command)
        files = sorted(folder.glob("*.gz"))
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
        assert (folder / "filelist").read_text() == "".join(f"{file}\t0.75\n" for file in files)
        assert sorted(path.name for path in folder.iterdir()) == ["filelist", *(file.name for file in files)]
    assert digests[0] == digests[1] and len(digests[0]) == 3
    shards = [read_lines(file) for file in files]
    lines = [shards[number % 3][number // 3] for number in range(len(direct))]
    for (ids, sent, pos, seg, label), (first, second, random) in zip(lines, texts_of(direct), strict=True):
        assert ids == [2, *first, 3, *second, 3] and pos == list(range(len(ids)))
        assert sent == [0] * (len(first) + 2) + [1] * (len(second) + 1) and label == 1 - random
        words = [[int(at > 0 and text.word[part[at]] == text.word[part[at - 1]]) for at in range(len(part))]
                 for part in (first, second)]  # fmt: skip
        assert seg == [-1, *words[0], -1, *words[1], -1]
    with pytest.raises(UserError, match="holds converted features already; pass --overwrite true"):
        main(command)
    main([*command, "--overwrite", "true"])
    again = convert(folder / "filelist", text.vocab, tmp_path / "again", **LIST, max_seq_length=LENGTH, dupe_factor=1)
    same = {(tuple(first), tuple(second), random) for first, second, random in texts_of(again)}
    assert same == {(tuple(first), tuple(second), random) for first, second, random in texts_of(direct)}


def test_chinese_lines_have_the_words_of_jieba(tmp_path):
    text = (
        "南京市长江大桥建成通车。\n他来到了网易杭研大厦。\n\n我们在野生动物园玩。\n小明硕士毕业于中国科学院计算所。\n"
    )
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *sorted(set(text) - {"\n"})]), encoding="utf-8")
    main(["pretrain", "--input_file", str(tmp_path / "x.txt"), "--vocab_file", str(tmp_path / "vocab.txt"),
          "--output_dir", str(tmp_path / "out"), "--dataset_format", "baidu", "--masking", "phrase",
          "--word_segmenter", "jieba", "--workers", "1", "--dupe_factor", "3", "--short_seq_prob", "0"])  # fmt: skip
    assert (tmp_path / "out/filelist").read_text().endswith("\t1.0\n")
    tokens = list(WordPieceTokenizer(tmp_path / "vocab.txt", True).vocab)
    starts = {line: np.cumsum([0, *map(len, jieba.lcut(line))]) for line in text.split("\n") if line}
    seen = 0
    for ids, _, _, seg, _ in read_lines(tmp_path / "out/pretrain-00000-of-00001.gz"):
        written = "".join(tokens[number] if number > MASK else "\n" for number in ids)
        assert [at for at, label in enumerate(seg) if label == -1] == [m.start() for m in re.finditer("\n", written)]
        for line, borders in starts.items():
            for found in re.finditer(re.escape(line), written):
                begins = [at for at in range(len(line)) if seg[found.start() + at] == 0]
                assert begins == borders[:-1].tolist()
                seen += 1
    assert seen >= 12


LINE = "2 5 6 7 3 8 9 3;0 0 0 0 0 1 1 1;0 1 2 3 4 5 6 7;-1 0 1 0 -1 0 1 -1;1"
REFUSED = {
    "four fields": (LINE.rpartition(";")[0], "line 2: 4 fields where 5 are expected, token_ids;sent_ids"),
    "an empty line": ("", "line 2: 1 fields where 5 are expected"),
    "no integer": (LINE.replace("5 6 7 3", "5 6 x 3"), "line 2: token_ids must be integers with one blank"),
    "two blanks": (LINE.replace("5 6 7 3", "5  6 7 3"), "line 2: token_ids must be integers with one blank"),
    "a huge one": (LINE.replace("5 6 7 3", f"5 {10**30} 7 3"), "line 2: token_ids must be integers"),
    "two labels": (f"{LINE} 1", "line 2: label must be one integer"),
    "lengths": (LINE.replace(";0 1 2 3 4", ";0 1 2 3"), "line 2: token_ids, .*, seg_labels must be equally long"),
    "not in the vocabulary": (LINE.replace(" 9 3", " 10 3"), "line 2: token_ids must lie in 0..9, the vocabulary"),
    "no [CLS]": (LINE.replace("2 5", "4 5"), r"line 2: token_ids must be \[CLS\], text, \[SEP\], text, \[SEP\]"),
    "no end": (LINE.replace("9 3", "9 4"), r"line 2: token_ids must be \[CLS\]"),
    "one text": (LINE.replace("7 3 8", "7 4 8"), r"line 2: token_ids must be \[CLS\]"),
    "three texts": (LINE.replace("5 6 7 3", "5 3 7 3"), r"line 2: token_ids must be \[CLS\]"),
    "an empty text": (LINE.replace("2 5 6 7 3", "2 3 6 7 4"), r"line 2: token_ids must be \[CLS\]"),
    "segments": (LINE.replace(";0 0 0 0 0 1", ";0 0 0 0 1 1"), "line 2: sent_ids must be 0 up to the first"),
    "positions": (LINE.replace(";0 1 2", ";1 1 2"), "line 2: pos_ids must be 0, 1, 2"),
    "words": (LINE.replace("-1 0 1 0", "-1 0 2 0"), "line 2: seg_labels must be 0 or 1, and -1"),
    "a special word": (LINE.replace("-1 0 1 0 -1", "-1 0 1 0 0"), "line 2: seg_labels must be 0 or 1, and -1"),
    "label": (f"{LINE[:-1]}2", "line 2: label must be 0 or 1"),
    "long": (re.sub(r"(\d+);", r"\1 1 1 1 1;", LINE), "line 2: 12 tokens, a row has 10; correct the file or skip such"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_refusals_name_file_and_line(case, suffix, tmp_path):
    line, message = REFUSED[case]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *"abcde"]))
    write_lines(tmp_path / f"x{suffix}", [LINE, line, LINE])
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=f"x{suffix}, {message}"):
        convert(tmp_path / f"x{suffix}", tmp_path / "vocab.txt", tmp_path / "out", **BAIDU, max_seq_length=10,
                max_predictions_per_seq=5)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_long_lines_are_left_out_on_demand(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *"abcde"]))
    write_lines(tmp_path / "x.gz", [LINE, REFUSED["long"][0], LINE])
    features = convert(tmp_path / "x.gz", tmp_path / "vocab.txt", tmp_path / "out", **BAIDU, max_seq_length=10,
                       max_predictions_per_seq=5, dupe_factor=1, skip=frozenset(["long"]))  # fmt: skip
    assert len(features) == 2 and features.info["skipped"] == {"long": ["line 2"]}


REFUSED_FILES = {
    "cut off": (gzip.compress(f"{LINE}\n".encode() * 9)[:-9], BAIDU, {}, "not a whole gzip file"),
    "garbled": (gzip.compress(b"x" * 99)[:12] + b"\xff" * 30, BAIDU, {}, "not a whole gzip file"),
    "empty": (b"", BAIDU, {}, "holds no usable sample"),
    "a random one": (f"{LINE}\n{LINE[:-1]}0\n".encode(), BAIDU, {"generate_neg_sample": True}, "line 2: label must"),
    "alone": (f"{LINE}\n".encode(), BAIDU, {"generate_neg_sample": True}, "line 1: no other sample is there"),
    "no share": (b"x.gz\n", LIST, {}, "line 1: 'x.gz' is no path, tab and mask_word_prob"),
    "not a number": (b"x.gz\tmost\n", LIST, {}, "line 1: .* is no path, tab and mask_word_prob"),
    "not a share": (b"x.gz\tnan\n", LIST, {}, "line 1: .* is no path, tab and mask_word_prob"),
    "not there": (b"y.gz\t1.1\n", LIST, {}, "line 1: 'y.gz': no such file, nor beside the list"),
    "no files": (b"", LIST, {}, "names no files"),
    "a list as lines": (b"x.gz\t1.1\n", BAIDU, {}, "line 1: a path and a share, as in lists of files"),
    "levels beside a list": (b"x.gz\t1.1\n", LIST, {"levels": WORDS}, "--masking has no use with --input_format"),
    "segmenter": (b"", BAIDU, {"levels": WORDS, "word_segmenter": "jieba"}, "--word_segmenter has no use"),
    "opencc": (b"", BAIDU, {"opencc": "t2s"}, "--opencc has no use with --input_format baidu"),
    "short": (b"", BAIDU, {"short_seq_prob": 0.5}, "--short_seq_prob has no use with --input_format baidu"),
    "legacy": (b"", BAIDU, {"legacy": True}, "--legacy has no use with --input_format baidu"),
    "written again": (b"", BAIDU, {"dataset_format": "baidu"}, "--dataset_format baidu has no use with --input_format"),
    "share of targets": (b"", {}, {"dataset_format": "baidu", "masked_lm_prob": 0.2}, "--masked_lm_prob .* has no use"),
    "names": (b"", {}, {"dataset_format": "baidu", "column_names": "ernie"}, "--column_names has no use"),
    "nothing to write": (b"\n", {}, {"dataset_format": "baidu"}, "x: holds no usable document"),
    "no room": (b"a\n\nb\n", {}, {"dataset_format": "baidu", "shards": 900}, "cannot fill 900 shards"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_FILES)
def test_files_and_flags_that_do_not_fit_are_refused(case, tmp_path):
    content, kind, settings, message = REFUSED_FILES[case]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *"abcde"]))
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "x", tmp_path / "vocab.txt", tmp_path / "out", **kind, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vocab.txt", "x"]


def test_targets_of_lines_in_figures(made, tmp_path):
    features = read(made, write_lines(tmp_path / "x.gz", made.lines), tmp_path / "out", **BAIDU, levels=WORDS,
                    dupe_factor=60)  # fmt: skip
    labels, ids = features.tokens["mlm_label"], features.tokens["input_ids"]
    targets = labels >= 0
    total, masked, kept = targets.sum(), (ids == MASK) & targets, (ids == labels) & targets
    assert total > 100000
    for found, share in ((masked, 0.8), (kept, 0.1), (targets & ~masked & ~kept, 0.1)):
        assert_share(found.sum(), total, share)
