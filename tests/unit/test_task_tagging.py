"""Entities out of tags: gold comes back through samples that are cut, broken tags against seqeval, offsets of words."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from seqeval.scheme import IOB2, IOBES, Tokens

from data_tools.feature_store import FeatureSet
from data_tools.features.tagging import TaggingFeaturizer, TaggingOptions
from data_tools.labels import Labels, tags_of_types
from data_tools.readers.tagging import TaggedText, TaggingLayout, TaggingReader
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from models.common.packing import pack, plan_rows
from models.common.tagging import SCHEMES, Entity, tag_names
from models.common.tasks import tagging

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "cafe", "foo", "x", "中"]
TYPES = ("LOC", "ORG", "PER")


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return path


def featurized(
    sentences: Sequence[TaggedText], vocab: Path, length: int, scheme: str = "BIO"
) -> tuple[FeatureSet, tuple[str, ...], dict]:
    """The samples, the names of their tags, and the counts."""
    tags = tags_of_types(Labels(TYPES, "these"), scheme)
    tokenizer = WordPieceTokenizer(vocab, lower_case=True)
    featurizer = TaggingFeaturizer(tokenizer, TaggingOptions(length), tags, Rejections("x"))
    return featurizer.features(sentences), tags.names, featurizer.counts


def borders_of(features: FeatureSet) -> dict[int, set[int]]:
    """Sentence -> the words that a sample other than its first begins with."""
    found: dict[int, set[int]] = {}
    for index in range(len(features)):
        sample = features.sample(index)
        found.setdefault(int(sample["sentence"]), set()).add(int(sample["word_id"][1]))
    return {number: words - {0} for number, words in found.items()}


def joined(entities: Iterable[Entity], borders: set[int]) -> list[Entity]:
    """Entities over words, those of one type that touch at a border made one."""
    whole: list[Entity] = []
    for start, end, kind in entities:
        if whole and start in borders and whole[-1][1:] == (start, kind):
            start = whole.pop().start
        whole.append(Entity(start, end, kind))
    return whole


def assert_gold_comes_back(sentences: list[TaggedText], vocab: Path, length: int, scheme: str) -> tuple[int, dict]:
    """Decoded gold equals what the reader gave; returns how many entities that are, and the counts."""
    features, names, counts = featurized(sentences, vocab, length, scheme)
    decoded = tagging.decode(features, tagging.gold_ids_of(features), names, scheme)
    borders = borders_of(features)
    assert [item.number for item in decoded] == [sentence.number for sentence in sentences]
    for sentence, item in zip(sentences, decoded, strict=True):
        assert list(item.entities) == joined(sentence.entities, borders[sentence.number])
        units = sentence.units
        assert list(item.characters) == [(units[start][0], units[end - 1][1]) for start, end, _ in item.entities]
    found = sum(len(item.entities) for item in decoded)
    gold = sum(len(sentence.entities) for sentence in sentences)
    assert counts["entities"] == gold and gold - found == counts["merged_entities"]
    return found, counts


def test_gold_of_msra_comes_back_from_short_samples(shared_data):
    """More than a quarter of its sentences are cut; of 3819 entities two and two touch at a cut."""
    sentences = list(TaggingReader(shared_data / "msra_ner/dev.tsv", TaggingLayout("msra")))
    vocab = shared_data / "vocab/bert_chinese_vocab.txt"
    found, counts = assert_gold_comes_back(sentences, vocab, 32, "BIO")
    assert (found, counts["entities"], counts["merged_entities"]) == (3817, 3819, 2)
    assert counts["cut_sentences"] > 500 and counts["cut_entities"] > 50


@pytest.mark.parametrize("scheme", SCHEMES)
def test_generated_gold_comes_back_through_a_file(vocab, tmp_path, scheme):
    """Words of one to six pieces, entities that touch and that are longer than a sample."""
    rng = random.Random(scheme)
    rows: list[str] = []
    for _ in range(300):
        words = ["".join(rng.choices("ab", k=rng.randint(1, 6))) for _ in range(rng.randint(1, 30))]
        tags: list[str] = []
        while len(tags) < len(words):
            size, kind = rng.randint(1, 7), rng.choice(["", *TYPES])
            tags += [f"{'I' if at else 'B'}-{kind}" if kind else "O" for at in range(size)]
        rows += [f"{word} {tag}" for word, tag in zip(words, tags, strict=False)] + [""]
    path = tmp_path / "gold.conll"
    path.write_text("\n".join(rows), encoding="utf-8")
    sentences = list(TaggingReader(path, TaggingLayout("conll", scheme="BIO")))
    assert len(sentences) == 300
    _, counts = assert_gold_comes_back(sentences, vocab, 12, scheme)
    assert min(counts[name] for name in ("cut_sentences", "cut_entities", "merged_entities")) > 10


@pytest.mark.parametrize(
    "word",
    [
        "cafe\u0301",
        "\u200bfoo\u200b",
        "x\xad",
        "\u0301foo",
        "foo\u0301\u0301b",
        "\u200b",
        "\U0001f9ff",
        "caf\xe9",
        "中\u200d",
    ],
)
@pytest.mark.parametrize("dataset", ["cluener", "msra", "conll"])
def test_words_keep_what_the_tokenizer_drops_at_their_borders(vocab, tmp_path, word, dataset):
    text = f"a {word} b" if dataset != "msra" else f"a{word}b"
    start = text.index(word)
    content = {
        "cluener": json.dumps({"text": text, "label": {"PER": {word: [[start, start + len(word) - 1]]}}}),
        "msra": f"text_a\tlabel\na\x02{word}\x02b\tO\x02B-PER\x02O\n",
        "conll": f"a O\n{word} B-PER\nb O\n",
    }[dataset]
    path = tmp_path / "gold"
    path.write_text(content, encoding="utf-8")
    sentences = list(TaggingReader(path, TaggingLayout(dataset)))
    start = sentences[0].text.index(word)
    features, names, _ = featurized(sentences, vocab, 16)
    [item] = tagging.decode(features, tagging.gold_ids_of(features), names, "BIO")
    assert tagging.as_entries(item) == [{"type": "PER", "start": start, "end": start + len(word)}]


@dataclass
class Samples:
    """Samples as decoding sees them: every word two characters a piece, one blank between words."""

    tokens: dict[str, np.ndarray]
    starts: np.ndarray
    scalars: dict[str, np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def samples_of(*parts: tuple[int, list[int]]) -> Samples:
    """parts: (sentence, word of each piece) of each sample."""
    words, begins, ends, lengths, position = [], [], [], [], {}
    for sentence, pieces in parts:
        for word in (-1, *pieces, -1):
            last, at = position.get(sentence, (-1, -1))
            words.append(word)
            begins.append(at + (word != last) if word >= 0 else -1)
            ends.append(begins[-1] + 2 if word >= 0 else -1)
            if word >= 0:
                position[sentence] = word, ends[-1]
        lengths.append(len(pieces) + 2)
    tokens = {"word_id": words, "offset_start": begins, "offset_end": ends}
    return Samples(
        {name: np.array(values, np.int32) for name, values in tokens.items()},
        np.cumsum([0, *lengths]),
        {"sentence": np.array([sentence for sentence, _ in parts])},
    )


NAMES = tuple(tag_names(("LOC", "PER"), "BIO"))


def decoded(samples: Samples, *tags: str) -> list[tuple[tuple[Entity, ...], tuple[tuple[int, int], ...]]]:
    """Entities and characters of each sentence; tags: of the pieces of each sample, by blanks."""
    ids = [np.array([NAMES.index(tag) for tag in ("O", *row.split(), "O", "O")]) for row in tags]  # one of padding
    return [(item.entities, item.characters) for item in tagging.decode(samples, ids, NAMES, "BIO")]


@pytest.mark.parametrize(
    ("tags", "entities", "characters"),
    [
        # The pieces:    0 0 1 1 1 2, at characters 0-2 2-4 5-7 7-9 9-11 12-14.
        ("B-PER I-PER O O O O", [Entity(0, 1, "PER")], [(0, 4)]),
        ("O B-PER O O O O", [Entity(0, 1, "PER")], [(0, 4)]),  # a part stands for its word
        ("O O O B-PER I-PER I-PER", [Entity(1, 3, "PER")], [(5, 14)]),
        ("O O B-PER B-LOC I-LOC O", [Entity(1, 2, "PER")], [(5, 11)]),  # two in one word: the first keeps it
        ("B-PER B-LOC I-LOC O O B-LOC", [Entity(0, 1, "PER"), Entity(2, 3, "LOC")], [(0, 4), (12, 14)]),
        ("B-LOC I-LOC I-LOC B-PER I-PER I-PER", [Entity(0, 2, "LOC")], [(0, 11)]),
        ("B-PER B-PER O O O O", [Entity(0, 1, "PER")], [(0, 4)]),
        ("I-PER I-PER O O I-LOC O", [], []),  # what continues nothing is dropped
        ("B-PER I-LOC O O O O", [Entity(0, 1, "PER")], [(0, 4)]),
    ],
)
def test_broken_tags_across_the_pieces_of_a_word(tags, entities, characters):
    [(found, places)] = decoded(samples_of((0, [0, 0, 1, 1, 1, 2])), tags)
    assert (list(found), list(places)) == (entities, characters)


def test_entities_that_touch_at_a_cut_are_one():
    """Only at a cut, of one type, and in one sentence; the second sentence has three samples of one word each."""
    cut = samples_of((3, [0, 0, 1]), (3, [2, 3]), (5, [0]), (5, [1]), (5, [2]))
    assert decoded(cut, "O O B-PER", "B-PER B-PER", "B-LOC", "B-LOC", "B-LOC") == [
        ((Entity(1, 3, "PER"), Entity(3, 4, "PER")), ((5, 10), (11, 13))),
        ((Entity(0, 3, "LOC"),), ((0, 8),)),
    ]
    assert decoded(cut, "O O B-PER", "B-LOC I-LOC", "B-LOC", "O", "B-LOC") == [
        ((Entity(1, 2, "PER"), Entity(2, 4, "LOC")), ((5, 7), (8, 13))),
        ((Entity(0, 1, "LOC"), Entity(2, 3, "LOC")), ((0, 2), (6, 8))),
    ]
    assert [len(entities) for entities, _ in decoded(cut, "O O O", "O O", "B-LOC", "I-LOC", "B-LOC")] == [0, 2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_tags_are_read_as_seqeval_reads_the_pieces_of_each_sample(scheme):
    """Random tags: seqeval's strict entities of each sample, put together at the cuts, then the words they lie in."""
    rng, names = random.Random(7), tag_names(("x", "y"), scheme)
    merged = dropped = 0
    for _ in range(1000):
        words = [word for word in range(rng.randint(1, 9)) for _ in range(rng.randint(1, 3))]
        cuts = sorted(
            {0, *(at for at, pair in enumerate(pairwise(words), 1) if len({*pair}) == 2 and rng.random() < 0.3)}
        )
        parts = [words[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(words)], strict=True)]
        tags = [[rng.choice(names) for _ in part] for part in parts]
        ids = [np.array([names.index(tag) for tag in ("O", *row, "O")]) for row in tags]
        [found] = tagging.decode(samples_of(*((0, part) for part in parts)), ids, names, scheme)
        pieces = []
        for begin, row in zip(cuts, tags, strict=True):
            theirs = Tokens([tag.replace("M-", "I-") for tag in row], IOB2 if scheme == "BIO" else IOBES).entities
            pieces += [Entity(begin + item.start, begin + item.end, item.tag) for item in theirs]
        whole = joined(pieces, {*cuts} - {0})
        expected: list[Entity] = []
        for start, end, kind in whole:
            over = Entity(words[start], words[end - 1] + 1, kind)
            if not expected or over.start >= expected[-1].end:
                expected.append(over)
        assert list(found.entities) == expected and list(found.tags) == [tag for row in tags for tag in row]
        merged, dropped = merged + len(pieces) - len(whole), dropped + len(whole) - len(expected)
    assert merged > 20 and dropped > 20


def test_samples_come_in_any_order_of_sentences_and_logits_in_any_of_two_forms():
    samples = samples_of((9, [0, 1]), (2, [0]))
    logits = [np.zeros((5, 5), np.float32), np.zeros((3, 5), np.float32)]  # a row of padding behind the first
    logits[0][1, NAMES.index("B-LOC")] = logits[1][1, NAMES.index("B-PER")] = 1
    ids = tagging.tag_ids_of({tagging.LOGITS: logits})
    assert [row.tolist() for row in ids] == [[0, 1, 0, 0, 0], [0, 3, 0]]
    assert tagging.tag_ids_of({tagging.TAG_IDS: [row.tolist() for row in ids]})[0].tolist() == ids[0].tolist()
    found = tagging.decode(samples, ids, NAMES, "BIO")
    assert [(item.number, item.entities) for item in found] == [
        (2, (Entity(0, 1, "PER"),)),
        (9, (Entity(0, 1, "LOC"),)),
    ]
    with pytest.raises(UserError, match=r"sentence 2: tag ids 5..5, the model has 5 tags"):
        tagging.decode(samples, [ids[0], np.array([0, 5, 0])], NAMES, "BIO")
    logits[1][0, 0] = np.nan
    with pytest.raises(UserError, match="sample 1: not a finite number"):
        tagging.tag_ids_of({tagging.LOGITS: logits})
    assert tagging.gold_ids_of(samples) is None


def test_results_on_disk(tmp_path):
    samples = samples_of((0, [0, 0, 1]), (1, [0]))
    gold = tagging.decode(samples, [np.array([0, 1, 2, 3, 0]), np.array([0, 0, 0])], NAMES, "BIO")
    found = tagging.decode(samples, [np.array([0, 1, 2, 0, 0]), np.array([0, 3, 0])], NAMES, "BIO")
    values = tagging.write_results(tmp_path, found, gold, 0.5, {"entity_text_f1": 0.25})
    assert values == json.loads((tmp_path / "eval.json").read_text())
    assert [values[name] for name in ("precision", "recall", "f1", "entity_text_f1")] == [0.5, 0.5, 0.5, 0.25]
    assert (values["sentences"], values["sentences_per_second"], values["types"]["LOC"]["f1"]) == (2, 4.0, 1.0)
    assert [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()] == [
        {"sentence": 0, "entities": [{"type": "LOC", "start": 0, "end": 4}],
         "gold": [{"type": "LOC", "start": 0, "end": 4}, {"type": "PER", "start": 5, "end": 7}]},
        {"sentence": 1, "entities": [{"type": "PER", "start": 0, "end": 2}], "gold": []},
    ]  # fmt: skip
    assert tagging.write_results(tmp_path, found, None) == {"sentences": 2}


def test_training_inputs_are_the_packed_samples(vocab):
    texts = [TaggedText("a b", [(0, 1), (2, 3)], (Entity(1, 2, "PER"),), 1, 0), TaggedText("ab", [(0, 2)], (), 2, 1)]
    features, names, _ = featurized(texts, vocab, 10)
    batch = pack(features, plan_rows(features.lengths, 10, 2), 10)
    inputs = tagging.training_inputs(features, batch)
    assert [array.dtype for array in inputs] == [np.int32] * 5 and {array.shape for array in inputs} == {(1, 10)}
    rows = {
        tuple(features.sample(at)["input_ids"]): [names[tag] for tag in features.sample(at)["tag_id"]] for at in (0, 1)
    }
    assert sorted(rows.values()) == [["O", "O", "B-PER", "O"], ["O", "O", "O", "O"]]
    tags = [names[tag] for tag in inputs[4][0]]
    at = 0
    for sample in batch.samples:
        ids = features.sample(int(sample))["input_ids"]
        assert inputs[0][0, at : at + len(ids)].tolist() == ids.tolist()
        assert tags[at : at + len(ids)] == rows[tuple(ids)]
        at += len(ids)
