"""Entity data: the gold of real files comes back, to the character, from the samples; every error named."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from transformers import BertTokenizer

from data_tools.convert import TaggingConversion, convert_tagging, main
from data_tools.feature_store import FORMATS, FeatureSet, load_features
from data_tools.features.tagging import TaggingFeaturizer, TaggingOptions, cut_points, sentence_ends
from data_tools.labels import Labels, tags_of_types
from data_tools.readers.tagging import CLUENER_TYPES, TaggedText, TaggingLayout, TaggingReader
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from models.common.tagging import Entity
from tests.record_files import assert_same

CHINESE, ENGLISH = "vocab/bert_chinese_vocab.txt", "vocab/bert_uncased_vocab.txt"
CLUENER, MSRA, CONLL = TaggingLayout("cluener"), TaggingLayout("msra"), TaggingLayout("conll")
ENGLISH_CONLL = """-DOCSTART- -X- -X- O

Holmqvist NNP I-NP B-PER
visited VBD I-VP O
New NNP I-NP B-LOC
Quistorpson NNP I-NP I-LOC
. . O O
"""


def write(tmp_path, content: str | bytes, name="data.txt"):
    """A file with this content."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def featurizer_of(vocab, length, scheme="BIO", types=("LOC", "PER")):
    tokenizer = WordPieceTokenizer(vocab, lower_case=True)
    tags = tags_of_types(Labels(tuple(types), "these"), scheme)
    return TaggingFeaturizer(tokenizer, TaggingOptions(length), tags, Rejections("x", what="sentences")), tags.names


def entities_in(features: FeatureSet, names, texts) -> dict[int, Counter]:
    """Sentence number -> (type, first character, end, text) of its entities, read tag by tag; no code of ours."""
    found: dict[int, Counter] = {}
    for index in range(len(features)):
        sample, spans, previous = features.sample(index), [], "O"
        for position, tag in enumerate(names[tag_id] for tag_id in sample["tag_id"]):
            if tag[0] in "BS":
                spans.append([tag[2:], position, position])
            elif tag != "O":
                assert previous != "O" and spans[-1][0] == tag[2:] and spans[-1][2] == position - 1
                spans[-1][2] = position
            previous = tag
        counter = found.setdefault(int(sample["sentence"]), Counter())
        for kind, first, last in spans:
            start, end = int(sample["offset_start"][first]), int(sample["offset_end"][last])
            counter[kind, start, end, texts[int(sample["sentence"])][start:end]] += 1
    return found


@pytest.mark.parametrize(("scheme", "length"), [("BIO", 52), ("BMES", 128)])
def test_cluener_comes_back(shared_data, scheme, length):
    """Every entity of the real file, but for the one sentence with two that overlap."""
    path = shared_data / "cluener/train.json"
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    rejections = Rejections(str(path), frozenset(["overlapping"]), "sentences")
    sentences = list(TaggingReader(path, CLUENER, rejections=rejections))
    assert rejections.skipped == {"overlapping": [1507]} and len(sentences) == len(rows) - 1 == 10747
    assert sentences[1] == TaggedText(
        rows[1]["text"], [(at, at + 1) for at in range(18)], (Entity(4, 8, "game"),), 2, 1
    )
    featurizer, names = featurizer_of(shared_data / CHINESE, length, scheme, CLUENER_TYPES)
    features = featurizer.features(sentences)
    found = entities_in(features, names, [row["text"] for row in rows])
    for number, row in enumerate(rows):
        if number != 1506:
            assert found[number] == Counter(
                (kind, start, end + 1, entity)
                for kind, entities in row["label"].items()
                for entity, places in entities.items()
                for start, end in places
            )
    assert featurizer.counts == {
        "examples": 10747, "features": 10747, "cut_sentences": 0, "entities": 23969, "cut_entities": 0,
        "merged_entities": 0,
    }  # fmt: skip
    assert features.scalars["unique_id"].tolist() == list(range(10747))


def test_msra_comes_back(shared_data):
    path = shared_data / "msra_ner/dev.tsv"
    rows = [[cell.split("\x02") for cell in line.split("\t")] for line in path.read_text().split("\n")[1:-1]]
    sentences = list(TaggingReader(path, MSRA))
    assert len(sentences) == len(rows) == 2318
    texts = ["".join(tokens) for tokens, _ in rows]
    assert [sentence.text for sentence in sentences] == texts
    featurizer, names = featurizer_of(shared_data / CHINESE, 600, "BIOES", ("LOC", "ORG", "PER"))
    found = entities_in(featurizer.features(sentences), names, texts)
    for number, (tokens, tags) in enumerate(rows):
        expected, starts = Counter(), np.cumsum([0, *map(len, tokens)])
        begins = [at for at, tag in enumerate(tags) if tag[0] == "B"]
        for begin in begins:
            end = begin + 1
            while end < len(tags) and tags[end] == f"I-{tags[begin][2:]}":
                end += 1
            expected[tags[begin][2:], starts[begin], starts[end], "".join(tokens[begin:end])] += 1
        assert found[number] == expected
    assert sum(map(Counter.total, found.values())) == 3819


def test_broken_tags_of_msra_are_named_skipped_or_mended(shared_data):
    """The training file as published has five sentences with an I that continues nothing."""
    path = shared_data / "msra_ner/train.tsv"
    with pytest.raises(UserError, match=r"train.tsv, line 2153: position 0: 'I-PER' at the start.*--repair_tags true"):
        list(TaggingReader(path, MSRA))
    skipped = Rejections("x", frozenset(["invalid_tags"]))
    kept = list(TaggingReader(path, MSRA, rejections=skipped))
    mended = Rejections("x")
    whole = list(TaggingReader(path, MSRA, rejections=mended, repair=True))
    assert skipped.skipped["invalid_tags"] == mended.repaired and len(mended.repaired) == 5
    assert len(kept) == 11995 and len(whole) == 12000
    [first] = [sentence for sentence in whole if sentence.line == 2153]
    assert first.entities[0].start == 0 and first.entities[0].type == "PER"


def test_word_pieces_carry_the_tags_as_if_they_were_the_units(shared_data, tmp_path):
    reader = TaggingReader(write(tmp_path, ENGLISH_CONLL), CONLL)
    [sentence] = reader
    assert sentence.text == "Holmqvist visited New Quistorpson ."
    assert sentence.entities == (Entity(0, 1, "PER"), Entity(2, 4, "LOC"))
    theirs = BertTokenizer(vocab=str(shared_data / ENGLISH), do_lower_case=True)
    pieces = [theirs.tokenize(word) for word in ("Holmqvist", "visited", "New", "Quistorpson", ".")]
    assert [len(part) for part in pieces] == [2, 1, 1, 4, 1]
    expected = {
        "BIO": "O B-PER I-PER O B-LOC I-LOC I-LOC I-LOC I-LOC O O",
        "BIOES": "O B-PER E-PER O B-LOC I-LOC I-LOC I-LOC E-LOC O O",
        "BMES": "O B-PER E-PER O B-LOC M-LOC M-LOC M-LOC E-LOC O O",
    }
    for scheme, tags in expected.items():
        featurizer, names = featurizer_of(shared_data / ENGLISH, 16, scheme)
        features = featurizer.features([sentence])
        assert [names[tag] for tag in features.tokens["tag_id"]] == tags.split()
    tokens = [token for part in pieces for token in part]
    ids = theirs.convert_tokens_to_ids(["[CLS]", *tokens, "[SEP]"])
    assert features.tokens["input_ids"].tolist() == ids
    assert features.tokens["word_id"].tolist() == [-1, 0, 0, 1, 2, 3, 3, 3, 3, 4, -1]
    for position, token in enumerate(tokens, 1):
        start, end = (int(features.tokens[name][position]) for name in ("offset_start", "offset_end"))
        assert sentence.text[start:end].lower() == token.removeprefix("##")
    assert (
        features.tokens["offset_start"][[0, -1]].tolist() == features.tokens["offset_end"][[0, -1]].tolist() == [-1] * 2
    )
    padded = features.padded([0], 13)
    assert padded["word_id"][0, 11:].tolist() == padded["offset_start"][0, 11:].tolist() == [-1, -1]


def test_every_unit_has_a_token(shared_data):
    """Characters that BERT drops or does not know become [UNK]; what looks like a special token is text."""
    text = "a\u00ad\U0001f9ff[SEP]\x00"
    units = [(0, 1), (1, 2), (2, 3), (3, 8), (8, 9)]
    featurizer, _ = featurizer_of(shared_data / ENGLISH, 20)
    features = featurizer.features([TaggedText(text, units, (), 1, 0)])
    vocab = WordPieceTokenizer(shared_data / ENGLISH, True).vocab
    expected = ["[CLS]", "a", "[UNK]", "[UNK]", "[", "sep", "]", "[UNK]", "[SEP]"]
    assert features.tokens["input_ids"].tolist() == [vocab[token] for token in expected]
    assert features.tokens["word_id"].tolist() == [-1, 0, 1, 2, 3, 3, 3, 4, -1]
    assert features.tokens["offset_end"].tolist() == [-1, 1, 2, 3, 4, 7, 8, 9, -1]


def test_cuts_lose_nothing_and_follow_the_rule():
    rng = random.Random(0)
    for _ in range(3000):
        room = rng.randrange(1, 12)
        sizes = np.array([rng.randrange(1, room + 1) for _ in range(rng.randrange(1, 40))])
        ends = np.array([rng.random() < 0.2 for _ in sizes])
        cuts = cut_points(sizes, ends, room)
        expected, begin = [], 0
        while sizes[begin:].sum() > room:
            fits = max(end for end in range(begin + 1, len(sizes) + 1) if sizes[begin:end].sum() <= room)
            begin = max([end for end in range(begin + 1, fits + 1) if ends[end - 1]], default=fits)
            expected.append(begin)
        assert cuts == expected


def test_long_sentences_become_several_samples(shared_data):
    path = shared_data / "msra_ner/dev.tsv"
    sentences = list(TaggingReader(path, MSRA))[:400]
    featurizer, names = featurizer_of(shared_data / CHINESE, 20, "BIO", ("LOC", "ORG", "PER"))
    features = featurizer.features(sentences)
    assert features.lengths.max() <= 20
    cut = 0
    for sentence in sentences:
        mine = np.flatnonzero(features.scalars["sentence"] == sentence.number)
        words = np.concatenate([features.sample(index)["word_id"][1:-1] for index in mine])
        assert words.tolist() == list(range(len(sentence.units)))
        borders = [features.sample(index)["word_id"][-2] + 1 for index in mine[:-1]]
        through = [entity for entity in sentence.entities if any(entity.start < b < entity.end for b in borders)]
        cut += len(through)
        for border in borders:
            ended = sentence.text[sentence.units[border - 1][0]] in "\u3002\uff01\uff1f\uff1b\u2026!?;"
            assert ended or not any(sentence_ends(sentence)[border - 5 : border])
    assert featurizer.counts["cut_entities"] == cut > 0
    samples = Counter(features.scalars["sentence"].tolist())
    assert featurizer.counts["cut_sentences"] == sum(count > 1 for count in samples.values()) > 0
    found = entities_in(features, names, [sentence.text for sentence in sentences])
    gold = sum(len(sentence.entities) for sentence in sentences)
    assert sum(map(Counter.total, found.values())) >= gold + cut
    chunked, _ = featurizer_of(shared_data / CHINESE, 20, "BIO", ("LOC", "ORG", "PER"))
    assert_same(features, features.join([chunked.features(sentences[at : at + 7]) for at in range(0, 400, 7)]))


def test_a_full_stop_ends_a_sentence_before_a_gap_only():
    text = "It is 3.5. Go to a.b now!"
    units = [(at, at + 1) for at, character in enumerate(text) if character != " "]
    ends = sentence_ends(TaggedText(text, units, None, 1, 0))
    assert [units[at][0] for at in np.flatnonzero(ends)] == [text.index(". Go"), text.index("!")]


def test_a_unit_longer_than_a_row(shared_data):
    sentence = TaggedText("quistorpson", [(0, 11)], (), 7, 0)
    with pytest.raises(
        UserError, match=r"x, line 7: unit 0 \(from 0\) has 4 tokens, more than the 3 of a row.*long_units"
    ):
        featurizer_of(shared_data / ENGLISH, 5)[0].features([sentence])
    assert len(featurizer_of(shared_data / ENGLISH, 6)[0].features([sentence])) == 1
    with pytest.raises(UserError, match="max_seq_length 2 leaves no room"):
        TaggingOptions(2)


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_formats_and_shards_hold_the_same_samples(shared_data, tmp_path, dataset_format):
    lines = (shared_data / "msra_ner/dev.tsv").read_text(encoding="utf-8").splitlines()[:60]
    path, vocab = write(tmp_path, "\n".join(lines)), shared_data / CHINESE
    settings = {"layout": MSRA, "scheme": "BMES", "max_seq_length": 24}
    convert_tagging(TaggingConversion(path, vocab, tmp_path / "1", dataset_format="numpy", **settings))
    reference = load_features(tmp_path / "1")
    for shards in (1, 3):
        folder = tmp_path / f"{dataset_format}-{shards}"
        convert_tagging(
            TaggingConversion(
                path, vocab, folder, dataset_format=dataset_format, shards=shards, chunk_records=5, **settings
            )
        )
        found = load_features(folder)
        assert_same(reference, found)
        for name in ("task", "labels", "scheme", "unit", "counts", "content_sha256"):
            assert found.info[name] == reference.info[name]
    assert found.info["unit"] == "given" and found.info["labels"][:5] == ["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC"]
    assert set(found.tokens) == {"input_ids", "token_type_ids", "tag_id", "word_id", "offset_start", "offset_end"}
    assert set(found.scalars) == {"sentence", "unique_id"} and found.info["counts"]["cut_sentences"] > 0


def test_the_command(shared_data, tmp_path, capsys):
    """CLUENER, a tenth held out; the dev part with the labels of the first; one to predict; words as units."""
    path = shared_data / "cluener/train.json"
    flags = ["tagging", "--vocab_file", str(shared_data / CHINESE), "--dataset_format", "numpy", "--dataset", "cluener"]
    part = [*flags, "--input_file", str(path), "--hold_out", "0.1", "--skip_overlapping", "true"]
    dev = ["--hold_out_part", "dev", "--output_dir", str(tmp_path / "dev")]
    main([*part, *dev, "--scheme", "BIOES"])
    assert "dev: 1074 sentences, 1074 features" in capsys.readouterr().out
    info = load_features(tmp_path / "dev").info
    assert len(info["labels"]) == 41 and info["labels"][:3] == ["O", "B-address", "I-address"] and not info["skipped"]
    small = write(tmp_path, '{"id": 0, "text": "to be predicted"}\n', "test.json")
    test = [*flags, "--input_file", str(small), "--output_dir", str(tmp_path / "test"), "--labelled", "false"]
    main([*test, "--label_file_path", str(tmp_path / "dev")])
    features = load_features(tmp_path / "test")
    assert features.info["labels"] == info["labels"] and features.info["scheme"] == "BIOES"
    assert "tag_id" not in features.tokens and features.lengths.tolist() == [2 + len("tobepredicted")]
    main([*test, "--unit", "word", "--overwrite", "true"])
    features = load_features(tmp_path / "test")
    assert max(features.tokens["word_id"]) == 2 and features.info["unit"] == "word"
    with pytest.raises(UserError, match=r"train.json, line 1507: the book .* and the company .* overlap"):
        main([*flags, "--input_file", str(path), "--output_dir", str(tmp_path / "no")])
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    ("dataset", "settings", "flag"),
    [
        ("cluener", {"repair_tags": True}, "--repair_tags is for msra and conll files"),
        ("cluener", {"skip": frozenset(["invalid_tags"])}, "--skip_invalid_tags is for msra and conll files"),
        ("msra", {"skip": frozenset(["misaligned"])}, "--skip_misaligned is for cluener files; leave it out for msra"),
        (
            "msra",
            {"skip": frozenset(["overlapping", "empty"])},
            "--skip_empty is .*; --skip_overlapping is for cluener",
        ),
        ("conll", {"skip": frozenset(["empty"])}, "--skip_empty is for cluener files"),
        ("msra", {"labelled": False, "repair_tags": True}, "--repair_tags is about labels, and --labelled false"),
        ("msra", {"labelled": False, "skip": frozenset(["invalid_tags"])}, "--skip_invalid_tags is about labels"),
        ("msra", {"labelled": False, "scheme": "BMES"}, "--scheme spells tags, and nothing names them"),
        ("cluener", {"labelled": False, "skip": frozenset(["misaligned"])}, "--skip_misaligned is about labels"),
    ],
)
def test_flags_that_could_do_nothing_are_refused(tmp_path, dataset, settings, flag):
    with pytest.raises(UserError, match=flag):
        TaggingConversion(tmp_path, tmp_path, tmp_path, TaggingLayout(dataset), **settings)
    for layout in (TaggingLayout("conll", scheme="BMES"), TaggingLayout("conll", tag_column=9)):
        with pytest.raises(UserError, match=r"--(source_scheme|tag_column) is about labels"):
            TaggingConversion(tmp_path, tmp_path, tmp_path, layout, labelled=False)


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("cluener", {"skip": frozenset(["misaligned", "overlapping", "empty", "long_units"])}),
        ("cluener", {"labelled": False, "scheme": "BMES", "skip": frozenset(["empty", "long_units"])}),
        ("msra", {"repair_tags": True, "skip": frozenset(["invalid_tags", "long_units"])}),
        ("conll", {"labelled": False, "scheme": "BMES", "label_file_path": "types.txt"}),
    ],
)
def test_flags_that_do_something_are_taken(tmp_path, dataset, settings):
    TaggingConversion(tmp_path, tmp_path, tmp_path, TaggingLayout(dataset), **settings)
