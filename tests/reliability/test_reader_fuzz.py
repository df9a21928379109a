"""Mutated inputs for every reader, every kind of label file and every record file: a `UserError` or success, nothing
else; no input takes long, and a conversion leaves a complete folder or none."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.convert import (
    ClassificationConversion,
    SquadConversion,
    TaggingConversion,
    convert_classification,
    convert_squad,
    convert_tagging,
)
from data_tools.example_proto import encode_examples
from data_tools.feature_store import SIDECAR, iterate_shard, load_features
from data_tools.features.span import SpanOptions
from data_tools.labels import read_labels, tag_set
from data_tools.readers.classification import KNOWN_LAYOUTS, TextLayout
from data_tools.readers.lines import LineReader
from data_tools.readers.tagging import TaggingLayout
from data_tools.tfrecord import write_records
from models.common.finetune.asking import read_input
from models.common.finetune.clue_benchmark import ClueBenchmark
from models.common.metrics import cmrc
from models.common.metrics.cluener import score_files
from models.common.metrics.question_files import load_predictions
from tests.fuzzing import WORDS, Target, complete_or_nothing, fuzz_all

SQUAD = json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [
    {"context": "the red fox, a b c.", "qas": [
        {"id": "q1", "question": "the fox?", "answers": [{"text": "red", "answer_start": 4}]},
        {"id": "q2", "question": "a b?", "is_impossible": True, "answers": []},
    ]},
    {"context": "\u4e2d\u56fd abb 12", "qas": [
        {"id": "q3", "question": "1?", "answers": [{"text": "12", "answer_start": 7}]},
    ]},
]}]}, indent=1)  # fmt: skip
CLUENER = (
    '{"text": "the \u4e2d\u56fd fox", "label": {"address": {"\u4e2d\u56fd": [[4, 5]]}, "name": {"fox": [[7, 9]]}}}\n'
    '{"text": "a", "label": {}}\n'
)
TNEWS = '{"label": 100, "sentence": "the fox", "id": 1}\n{"label": "101", "sentence": "\u4e2d\u56fd 12"}\n'
CHN = 'label\ttext_a\n1\tthe "red fox\n0\t\u4e2d\u56fd, a b.\n'
COLA = "gj04\t1\t\tthe fox.\ngj04\t0\t*\ta b c\n"
STSB = 'the fox,"a, ""b""\nc",2.5\n\u4e2d\u56fd,12,0\n'
PAIRS = "text_a\ttext_b\tlabel\nthe fox\ta b\tyes\n\u4e2d\u56fd\t1 2\tno\n"
DBQA = "qid\ttext_a\ttext_b\tlabel\n0\tthe fox\ta b\t1\n0\tthe fox\tc\t0\n7\t\u4e2d\u56fd\t1 2\t0\n"
XNLI = "text_a\ttext_b\tlabel\nthe fox\ta b\tcontradiction\n\u4e2d\u56fd\t1 2\tneutral\na\tb\tcontradictory\n"
MSRA = "text_a\tlabel\nthe\x02fox\x02.\tB-PER\x02I-PER\x02O\n\u4e2d\x02\u56fd\tB-LOC\x02I-LOC\n"
CONLL = "-DOCSTART- O\n\nthe O\nred B-PER\nfox E-PER\n\n\u4e2d S-LOC\n. O\n"


def converting(folder: Path, dataset_format: str = "numpy") -> list[Target]:
    """Whole conversions, from the file to the folder: `folder` must hold a complete one afterwards, or none."""
    vocab, output = folder / "vocab.txt", folder / "output"
    vocab.write_text("\n".join(WORDS) + "\n", encoding="utf-8")

    def check(convert: Callable[[], dict]) -> None:
        complete_or_nothing(folder, output, convert)

    def text(layout: TextLayout, **settings) -> Callable[[Path], object]:
        settings = {"max_seq_length": 8, "dataset_format": dataset_format} | settings
        return lambda path: check(
            lambda: convert_classification(ClassificationConversion(path, vocab, output, layout, **settings))
        )

    def tags(dataset: str, unit: str = "character", **settings) -> Callable[[Path], object]:
        layout = TaggingLayout(dataset, unit)
        settings = {"max_seq_length": 6, "dataset_format": dataset_format} | settings
        return lambda path: check(lambda: convert_tagging(TaggingConversion(path, vocab, output, layout, **settings)))

    def squad(is_training: bool) -> Callable[[Path], object]:
        settings = {"span": SpanOptions(16, 2), "dataset_format": dataset_format}
        return lambda path: check(lambda: convert_squad(SquadConversion(path, vocab, output, is_training, **settings)))

    entities = frozenset(["misaligned", "overlapping", "empty", "long_units"])
    tokens = frozenset(["invalid_tags", "long_units"])
    return [
        Target("squad training", SQUAD, squad(True)),
        Target("squad evaluation", SQUAD, squad(False)),
        Target("tnews", TNEWS, text(KNOWN_LAYOUTS["tnews"])),
        Target("chnsenticorp", CHN, text(KNOWN_LAYOUTS["chnsenticorp"], skip=frozenset(["empty"]))),
        Target("cola", COLA, text(KNOWN_LAYOUTS["cola"])),
        Target("stsb", STSB, text(KNOWN_LAYOUTS["stsb"])),
        Target("pairs", PAIRS, text(TextLayout("tsv", "text_a", "text_b", "label"))),
        Target("pairs of csv", PAIRS.replace("\t", ","), text(TextLayout("csv", "text_a", "text_b", "label"))),
        Target("dbqa", DBQA, text(KNOWN_LAYOUTS["dbqa"])),
        Target("xnli", XNLI, text(KNOWN_LAYOUTS["xnli"], skip=frozenset(["empty"]))),
        Target("unlabelled", COLA, text(KNOWN_LAYOUTS["cola"], labelled=False)),
        Target("cluener", CLUENER, tags("cluener")),
        Target("cluener by words", CLUENER, tags("cluener", "word", skip=entities, scheme="BMES")),
        Target("msra", MSRA, tags("msra", repair_tags=True)),
        Target("conll", CONLL, tags("conll", skip=tokens)),
        Target("conll without tags", CONLL, tags("conll", labelled=False)),
    ]  # fmt: skip


def reading(folder: Path) -> list[Target]:
    """Label files, sidecars, schemas, vocabularies and record files."""
    complete, gold = folder / "complete", folder / "gold.json"
    gold.write_text(CLUENER, encoding="utf-8")
    gold_questions, gold_answers = folder / "questions.json", folder / "answers.json"
    gold_questions.write_text(SQUAD.replace("[]", '[{"text": "a"}]'), encoding="utf-8")
    gold_answers.write_text('{"q1": "the fox", "q3": "12"}', encoding="utf-8")
    vocab, source = folder / "vocab.txt", folder / "source.tsv"
    vocab.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    source.write_text(CHN, encoding="utf-8")
    layout = KNOWN_LAYOUTS["chnsenticorp"]
    convert_classification(ClassificationConversion(source, vocab, complete, layout, dataset_format="numpy"))
    sidecar, array = ((complete / name).read_bytes() for name in (SIDECAR, "classification-00000-of-00001.length.npy"))
    records, output = folder / "records", folder / "output"
    convert_classification(ClassificationConversion(source, vocab, records, layout))
    index = (records / "classification-00000-of-00001.mindrecord.db").read_bytes()

    def with_vocab(path: Path) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [file.unlink() for file in output.glob("*")] and output.rmdir())
            convert_classification(ClassificationConversion(source, path, output, layout, dataset_format="numpy"))

    def with_sidecar(path: Path) -> None:
        (complete / SIDECAR).write_bytes(path.read_bytes())
        features = load_features(complete)
        assert features.padded(np.arange(len(features)), 200)["input_ids"].shape == (2, 200)

    def with_array(path: Path) -> None:
        name = "classification-00000-of-00001.length.npy"
        (complete / name).write_bytes(path.read_bytes())
        list(iterate_shard("numpy", complete / name))

    def with_mindrecord(path: Path) -> None:
        name = "classification-00000-of-00001.mindrecord.db"
        (records / name).write_bytes(path.read_bytes())
        load_features(records)

    def as_record(first: bytes) -> Callable[[Path], object]:
        """The mutated bytes as the second record, its checksum right: else every mutation would be the same error."""

        def read(path: Path) -> None:
            record = folder / "one.tfrecord"
            with record.open("wb") as file:
                write_records(file, [first, path.read_bytes()])
            load_features(record)

        return read

    def with_schema(path: Path) -> None:
        record = folder / "one.tfrecord"
        with record.open("wb") as file:
            write_records(file, [example()])
        load_features(record, path)

    tfrecord = folder / "seed.tfrecord"
    with tfrecord.open("wb") as file:
        write_records(file, [example(), example()])
    schema = json.dumps({"datasetType": "TF", "columns": {"input_ids": {"type": "int64", "rank": 1, "shape": [4]}}})
    return [
        Target("labels", "O\nB-PER\nI-PER\nB-LOC\nI-LOC\n", lambda path: tag_set(read_labels(path), None)),
        Target("label map", '{"O": 0, "B-PER": 1, "I-PER": 2}', lambda path: read_labels(renamed(path, "map.json"))),
        Target("label map with spellings", '{"x": 0, "y": 0, "z": 1}', lambda p: read_labels(renamed(p, "map.json"))),
        Target("types", "PER\nLOC\nORG\n", lambda path: tag_set(read_labels(path), "BIOES")),
        Target("types map", '{"PER": 0, "LOC": 1}', lambda path: tag_set(read_labels(renamed(path, "map.json")), None)),
        Target("gold to score", CLUENER, lambda path: score_files(path, gold)),
        Target("predictions to score", CLUENER, lambda path: score_files(gold, path)),
        Target("benchmark", CLUENER, ClueBenchmark),
        Target("pairs to ask about", '{"text_a": "a", "text_b": "b"}\nthe fox\ta b\n', asking("classification")),
        Target("sentences to ask about", '{"text": "the fox"}\na b\n', asking("tagging")),
        Target("questions to ask", '{"question": "a?", "context": "b"}\nthe fox?\ta b\n', asking("span")),
        Target("vocabulary", "\n".join(WORDS) + "\n", with_vocab, 150),
        Target("ernie's vocabulary", "".join(f"{word}\t{at}\n" for at, word in enumerate(WORDS)), with_vocab, 150),
        Target("dataset of cmrc", SQUAD.replace("[]", '[{"text": "a"}]'), lambda path: cmrc_score(path, gold_answers)),
        Target(
            "predictions of cmrc",
            '{"q1": "red", "q2": "a b", "q3": "\u4e2d 12"}',
            lambda path: cmrc_score(gold_questions, path),
        ),
        Target("sidecar", sidecar, with_sidecar, 500),
        Target("array", array, with_array),
        # Mutations of MindRecord files that get past the checksums end in MindSpore, at times with the whole process.
        Target("mindrecord", index, with_mindrecord, 30),
        Target("record", example(), as_record(example()), 500),
        Target("record with predictions", example(**PREDICTIONS), as_record(example(**PREDICTIONS)), 300),
        Target("tfrecord", tfrecord.read_bytes(), lambda path: load_features(renamed(path, "x.tfrecord"))),
        Target("schema", schema, with_schema),
    ]


def cmrc_score(dataset: Path, predictions: Path) -> None:
    """As the metric's command does."""
    scores = cmrc.evaluate(cmrc.load_dataset(dataset), load_predictions(predictions), str(dataset))
    assert all(0 <= scores[name] <= 100 for name in ("exact_match", "f1", "average"))


def asking(task: str) -> Callable[[Path], object]:
    """Reads the lines of a file as `predict` does, and says that their texts can be tokenized."""

    def read(path: Path) -> None:
        for number, line in LineReader(path):
            if line.strip():
                for part in read_input(task, line, f"{path}, line {number}").parts.values():
                    part.encode("utf-8")

    return read


PREDICTIONS = {"masked_lm_positions": [[0, 1]], "masked_lm_ids": [[3, 9]], "masked_lm_weights": [[1, 1]],
               "label_ids": [[0, 0, 0, 0]]}  # fmt: skip


def example(**columns: list[list[int]]) -> bytes:
    """A record of each kind of column, and of these."""
    numbers = {"input_ids": [[5, 6, 0, 0]], "input_mask": [[1, 1, 0, 0]], "segment_ids": [[0, 0, 0, 0]],
               "label_ids": [[1, 2, 0, 0]], "unique_ids": [7]} | columns  # fmt: skip
    arrays = {name: np.array(values) for name, values in numbers.items()} | {"scores": np.array([0.5], np.float32)}
    return encode_examples(arrays, {"qas_id": ["q"]})[0]


def renamed(path: Path, name: str) -> Path:
    """The file under a name that says what it is."""
    target = path.with_name(name)
    target.write_bytes(path.read_bytes())
    return target


@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # of Python 2, says numpy of some damaged headers
def test_mutated_inputs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # thousands of folders; a power cut is not what is tried
    begin = time.process_time()
    report = fuzz_all(tmp_path, {"converting": converting, "reading": reading})
    capsys.readouterr()
    total = sum(map(Counter.total, report.values()))
    print({name: dict(outcomes) for name, outcomes in report.items()}, round(time.process_time() - begin, 1), "s")
    assert total >= 5000
    for name, outcomes in report.items():
        # A target that refuses or reads everything tries nothing.
        least = 0 if name in ("tfrecord", "mindrecord", "record with predictions") else 4
        assert outcomes["refused"] > 5 and outcomes["read"] > least, (name, outcomes)
