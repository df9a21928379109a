"""`convert pretrain` as a command: the same bytes however it is run, every layout of text, Chinese words, refusals."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path

import jieba
import numpy as np
import pytest
from transformers import BertTokenizer

from data_tools.convert import main
from data_tools.converters import pretrain
from data_tools.feature_store import load_features
from data_tools.parallel import AHEAD, ordered_map
from data_tools.readers import corpus as reading
from data_tools.readers.corpus import CorpusReader, Document, chunks
from data_tools.readers.lines import LineReader
from models.common.errors import UserError
from tests.pretrain_corpus import WORDS, MadeCorpus, convert, make_corpus, original_ids, texts_of

REPOSITORY = Path(__file__).resolve().parents[2]
WIKI = '<doc id="{}" url="https://example" title="A > b">\n{}\n</doc>\n'


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), documents=80, most_sentences=12, most_words=6, most_pieces=2)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def documents_of(text: str) -> list[list[str]]:
    return [document.split("\n") for document in text.strip().split("\n\n")]


@pytest.mark.parametrize("dataset_format", ["numpy", "tfrecord", "mindrecord"])
def test_the_bytes_do_not_depend_on_the_workers(corpus, tmp_path, monkeypatch, dataset_format):
    """Nor on how the file is read; several chunks for every worker."""
    monkeypatch.setattr(reading, "CHUNK_CHARACTERS", 3000)
    monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
    assert len(list(chunks(CorpusReader([corpus.text])))) >= 6
    made = {}
    for workers in (1, 2, 3) if dataset_format == "numpy" else (1, 2):
        corpus.convert(tmp_path / f"{workers}", workers=workers, shards=2, dataset_format=dataset_format)
        made[workers] = digests(tmp_path / f"{workers}")
    monkeypatch.setattr(reading, "LineReader", partial(LineReader, block_bytes=7))
    corpus.convert(tmp_path / "blocks", shards=2, dataset_format=dataset_format)
    assert all(found == made[1] for found in [*made.values(), digests(tmp_path / "blocks")])


def test_the_seed_decides(corpus, tmp_path):
    first, again, other = (
        corpus.convert(tmp_path / str(number), random_seed=seed, dupe_factor=1).info["content_sha256"]
        for number, seed in enumerate((7, 7, 8))
    )
    assert first == again != other


def test_passes_and_chunks_are_drawn_anew(corpus, tmp_path):
    """No two passes over the same text are alike."""
    features = corpus.convert(tmp_path / "out", dupe_factor=3)
    third = len(features) // 3
    seen = {tuple(first) + tuple(second) for first, second, _ in texts_of(features.select(range(third)))}
    again = [
        tuple(first) + tuple(second) for first, second, _ in texts_of(features.select(range(2 * third, 3 * third)))
    ]
    assert sum(text in seen for text in again) < len(again) / 2


def test_chunks_hold_neighbours_and_never_one_alone(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_CHARACTERS", 100)
    monkeypatch.setattr(reading, "CHUNK_DOCUMENTS", 5)
    rng = np.random.default_rng(0)
    for total in range(40):
        sizes = [int(size) for size in rng.integers(1, 150, total)]
        documents = [Document(Path("x"), number, ["s"], size) for number, size in enumerate(sizes)]
        made = list(chunks(documents))
        assert [document for chunk in made for document in chunk] == documents
        assert all(2 <= len(chunk) <= 6 for chunk in made) or total < 2
        assert all(len(chunk) < 4 or sum(document.characters for document in chunk[:-2]) < 100 for chunk in made)


def test_memory_does_not_grow_with_the_corpus(minilm_dir, tmp_path):
    """Eight times the corpus costs nothing more, though what is made of it would fill far more memory."""
    words = [word for word in (minilm_dir / "vocab.txt").read_text().split("\n") if word.isalpha()]
    rng = np.random.default_rng(1)
    sentences = [" ".join(sentence) for sentence in rng.choice(words, (6000, 12))]
    text = "\n\n".join("\n".join(sentences[begin : begin + 10]) for begin in range(0, 6000, 10)) + "\n\n"
    code = (
        "import resource, sys; from data_tools.readers import corpus; corpus.CHUNK_CHARACTERS = 1 << 17; "
        "from data_tools.convert import main; main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for copies in (1, 8):
        (tmp_path / "text").write_text(copies * text)
        flags = ["--input_file", tmp_path / "text", "--vocab_file", minilm_dir / "vocab.txt", "--workers", "1"]
        flags += ["--output_dir", tmp_path / f"out{copies}", "--dataset_format", "numpy"]
        done = subprocess.run(
            [sys.executable, "-c", code, "pretrain", *flags], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]))
    stored = sum(file.stat().st_size for file in (tmp_path / "out8").iterdir()) >> 20
    assert stored > 40
    assert peaks[1] - peaks[0] < 15, (peaks, stored)


def test_a_wikiextractor_tree_holds_the_same_documents(corpus, tmp_path):
    """Blank lines inside a <doc> part nothing; what is hidden is left out; files come in the order of their names."""
    documents = documents_of(corpus.text.read_text())
    plain = corpus.convert(tmp_path / "plain", dupe_factor=1)
    for number, part in enumerate((documents[:30], documents[30:50], documents[50:])):
        file = tmp_path / "tree" / ("AA", "AA", "AB")[number] / f"wiki_0{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(WIKI.format(at, "\n\n".join(sentences)) for at, sentences in enumerate(part)))
    (tmp_path / "tree/AA/.hidden").write_text("no text")
    tree = convert(tmp_path / "tree", corpus.vocab, tmp_path / "out", dupe_factor=1)
    assert tree.info["content_sha256"] == plain.info["content_sha256"]
    assert (tree.info["source_files"], tree.info["source"]["file"]) == (3, "tree")
    files = tuple(sorted((tmp_path / "tree").rglob("wiki*")))
    again = convert(files, corpus.vocab, tmp_path / "files", dupe_factor=1)
    assert again.info["content_sha256"] == plain.info["content_sha256"]


def test_line_ends_and_blanks_do_not_matter(corpus, tmp_path):
    text = corpus.text.read_text()
    (tmp_path / "odd.txt").write_bytes(b"\xef\xbb\xbf\n \t\n" + text.replace("\n", " \r\n\t").encode() + b"\r\n\r\n\n")
    made = [
        convert(file, corpus.vocab, tmp_path / file.stem, dupe_factor=1) for file in (corpus.text, tmp_path / "odd.txt")
    ]
    assert made[0].info["content_sha256"] == made[1].info["content_sha256"]
    assert made[0].info["counts"]["examples"] == 80


def test_sentences_and_documents_without_tokens_are_left_out(corpus, tmp_path):
    documents = documents_of(corpus.text.read_text())
    nothing = "\u200b\u200b"
    odd = [[nothing], *([nothing, *sentences] for sentences in documents), [nothing, nothing]]
    (tmp_path / "odd.txt").write_text("\n\n".join("\n".join(sentences) for sentences in odd), encoding="utf-8")
    made = [
        convert(file, corpus.vocab, tmp_path / file.stem, dupe_factor=1) for file in (corpus.text, tmp_path / "odd.txt")
    ]
    assert made[0].info["content_sha256"] == made[1].info["content_sha256"]
    assert made[0].info["counts"] == made[1].info["counts"]


def test_the_sidecar_counts(corpus, tmp_path):
    features = corpus.convert(tmp_path / "out", max_seq_length=32, max_predictions_per_seq=3, dupe_factor=2)
    info, texts = features.info, texts_of(features)
    counts = info["counts"]
    assert counts["examples"] == 80 and counts["sentences"] == corpus.sentence.max() + 1
    assert counts["features"] == len(features) and counts["skipped"] == {}
    assert counts["random_next"] == sum(random_next for _, _, random_next in texts)
    assert counts["targets"] == (features.tokens["mlm_label"] >= 0).sum()
    assert info["task"] == "pretrain" and info["source_files"] == 1
    assert (info["max_seq_length"], info["max_predictions_per_seq"], info["dupe_factor"]) == (32, 3, 2)


def test_chinese_words_are_those_of_jieba(shared_data, tmp_path, monkeypatch):
    """Of every word that jieba sees in the text, all tokens in a sample are targets or none."""
    lines = (shared_data / "corpus/zh.txt").read_text(encoding="utf-8").split("\n")[:200]
    (tmp_path / "zh.txt").write_text("\n".join(lines), encoding="utf-8")
    vocab = shared_data / "vocab/bert_chinese_vocab.txt"
    monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
    features = convert(
        tmp_path / "zh.txt", vocab, tmp_path / "out", levels=WORDS, word_segmenter="jieba", dupe_factor=2,
        workers=2,
    )  # fmt: skip
    assert features.info["word_segmenter"] == f"jieba {jieba.__version__}"
    encoded = BertTokenizer(vocab=str(vocab))(lines, add_special_tokens=False, return_offsets_mapping=True)
    stream, words = [], []  # every token of the text, and the place of its word
    for number, line in enumerate(lines):
        word_of = np.repeat(np.arange(len(cut := jieba.lcut(line))), [len(word) for word in cut])
        stream += encoded["input_ids"][number]
        words += [1000 * number + word_of[start] for start, _ in encoded["offset_mapping"][number]]
    written, words = "".join(f"{token:6}" for token in stream), np.array(words)
    several = 0
    for index in range(len(features)):
        sample = features.sample(index)
        ids = np.where(sample["mlm_label"] >= 0, sample["mlm_label"], sample["input_ids"])
        for segment in (0, 1):
            part = np.flatnonzero(sample["token_type_ids"] == segment)[1 - segment : -1]
            text = "".join(f"{token:6}" for token in ids[part])
            place, remainder = divmod(written.index(text), 6)
            assert not remainder
            if written.count(text) == 1:
                _, inverse, sizes = np.unique(words[place : place + len(part)], return_inverse=True, return_counts=True)
                chosen = np.bincount(inverse, sample["mlm_label"][part] >= 0)
                assert ((chosen == 0) | (chosen == sizes)).all()
                several += np.count_nonzero(chosen > 1)
    assert several > 500


@pytest.mark.parametrize("flags", [["--do_lower_case", "False"], ["--do_lower_case", "false"]])
def test_false_is_false(tmp_path, minilm_dir, flags):
    """In the original's generators "False" was true."""
    (tmp_path / "x.txt").write_text("The Fox\n\nA Dog\n")
    command = ["pretrain", "--input_file", str(tmp_path / "x.txt"), "--vocab_file", str(minilm_dir / "vocab.txt")]
    main([*command, "--output_dir", str(tmp_path / "out"), "--dataset_format", "numpy", "--workers", "1", *flags])
    vocab = (minilm_dir / "vocab.txt").read_text().split("\n")
    words = {vocab[token] for token in original_ids(load_features(tmp_path / "out"))}
    assert words == {"[CLS]", "[SEP]", "[UNK]"}


LONG = "x" * 100
REFUSED = {
    "empty": ("", "", "holds no usable document"),
    "blank": (" \n\n\t\n", "", "holds no usable document"),
    "one document": ("a fox\na dog\n", "", "x.txt, line 1: what begins here has fewer than two documents"),
    "one that holds a token": ("\u200b\n\n\na fox\n", "", "line 1: what begins here has fewer than two documents"),
    "bytes": (b"a\n\nb\xff\xfe\n", "", "x.txt, line 3: byte 1 is not UTF-8"),
    "NUL": ("a\n\nb\0c\n", "", "x.txt, line 3: holds a NUL"),
    "long line": (f"a\n\n{LONG}", "", "x.txt, line 3: longer than"),
    "endless document": ("a\n\nb\n" + "a fox\n" * 20, "", "x.txt, line 3: the document that begins here has more than"),
    "doc in doc": ("<doc id=1>\na\n<doc id=2>\nb\n", "", "line 3: <doc> inside the document that line 1 began"),
    "open doc": ("<doc id=1>\na\n</doc>\n<doc id=2>\nb\n", "", "line 4: the <doc> of this line has no </doc>"),
    "closed twice": ("<doc id=1>\na\n</doc>\n</doc>\n", "", "line 4: </doc> without <doc>"),
    "segmenter alone": ("a\n\nb\n", "--word_segmenter jieba", "--word_segmenter is for --masking phrase or entity"),
    "no room": ("a\n\nb\n", "--max_seq_length 4", "leaves no room for two texts"),
    "numbers": (
        "a\n\nb\n",
        "--max_predictions_per_seq 0 --masked_lm_prob 1.5 --short_seq_prob -1 --dupe_factor 0 --random_seed -1",
        "max_predictions_per_seq must .* 1..125, .*; masked_lm_prob .*; short_seq_prob .*; dupe_factor .*; random_seed",
    ),
    "workers": ("a\n\nb\n", "--workers 0", "workers must be at least 1, got 0"),
    "shards": ("a\n\nb\n", "--shards 900", "cannot fill 900 shards; lower --shards"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_file_and_line(case, tmp_path, minilm_dir, monkeypatch):
    monkeypatch.setattr("data_tools.readers.lines.MAX_LINE_BYTES", 90)
    monkeypatch.setattr("data_tools.readers.lines.BLOCK_BYTES", 64)
    monkeypatch.setattr(reading, "LineReader", partial(LineReader, block_bytes=64))
    monkeypatch.setattr(reading, "MAX_DOCUMENT_CHARACTERS", 95)
    content, flags, message = REFUSED[case]
    (tmp_path / "x.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["pretrain", "--input_file", str(tmp_path / "x.txt"), "--vocab_file", str(minilm_dir / "vocab.txt")]
    with pytest.raises(UserError, match=message):
        main([*command, "--output_dir", str(tmp_path / "out"), "--dataset_format", "numpy", "--workers", "1",
              *flags.split()])  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt"]


def test_what_is_not_there_is_refused(tmp_path, minilm_dir, monkeypatch):
    vocab = minilm_dir / "vocab.txt"
    with pytest.raises(UserError, match=r"none\.txt: corpus not found"):
        convert(tmp_path / "none.txt", vocab, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.hidden").write_text("a")
    with pytest.raises(UserError, match="empty: holds no files"):
        convert(tmp_path / "empty", vocab, tmp_path / "out")
    (tmp_path / "x.txt").write_text("a\n\nb\n")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n")
    with pytest.raises(UserError, match=r"vocab.txt: the vocabulary lacks \[MASK\]"):
        convert(tmp_path / "x.txt", tmp_path / "vocab.txt", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match=r"jieba is not installed; pip install 'encoder-zoo\[jieba\]'"):
        convert(tmp_path / "x.txt", vocab, tmp_path / "out", levels=WORDS, word_segmenter="jieba")


def test_a_worker_tells_what_is_wrong(tmp_path, minilm_dir, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_CHARACTERS", 1)
    monkeypatch.setattr(pretrain, "BYTES_PER_WORKER", 1)
    (tmp_path / "x.txt").write_text("a\n\nb\n\n\u200b\n\n\u200b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x.txt, line 5: what begins here has fewer"):
        convert(tmp_path / "x.txt", minilm_dir / "vocab.txt", tmp_path / "out", workers=2)


def test_results_come_in_order_and_items_are_not_taken_far_ahead():
    taken = count()
    items = (-next(taken) for _ in range(60))
    results = ordered_map(abs, items, 2)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert next(taken) <= 20 + 2 + AHEAD
    results.close()


def test_a_worker_that_is_killed_is_an_error():
    with pytest.raises(UserError, match="a worker process was killed"):
        list(ordered_map(os._exit, [1] * 4, 2))


def test_workers_end_with_their_parent():
    code = "import time; from data_tools.parallel import ordered_map; next(ordered_map(time.sleep, [100] * 4, 2))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    children: list[str] = []
    deadline = time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < deadline:  # two workers, and multiprocessing's own helper
        time.sleep(0.2)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    time.sleep(1)  # until they work
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(children) == 3 and not any(Path(f"/proc/{child}").exists() for child in children)
