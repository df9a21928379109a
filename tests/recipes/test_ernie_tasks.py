"""DBQA and CMRC from raw files to scores: the metric that a run chooses goes with its folder and its exports.

The vocabulary is in ERNIE's layout, token and id on each line, in all of it.
"""

import json
from pathlib import Path

import pytest

from data_tools.convert import ClassificationConversion, SquadConversion, convert_classification, convert_squad
from data_tools.features.span import SpanOptions
from data_tools.readers.classification import KNOWN_LAYOUTS, TextLayout
from models.bert import export, predict, quantize, run_classifier, run_ner, run_squad
from models.common.errors import UserError
from models.common.export.manifest import FILE_NAME, read_manifest
from models.common.files import read_json, sha256_of, write_json
from models.common.finetune import evaluate_cell
from models.common.finetune.evaluating import made_with
from models.common.metrics import cmrc, squad
from tests.commands import flags
from tests.tiny import write_weights

LENGTH = 48
CONTEXTS = {
    "\u7ea2\u697c\u68a6\uff0c\u4f5c\u8005\u662f\u66f9\u96ea\u82b9\u3002\u5171\u4e00\u767e\u56de\u3002": {
        "\u4f5c\u8005\u662f\u8c01": "\u66f9\u96ea\u82b9",
        "\u5171\u591a\u5c11\u56de": "\u4e00\u767e\u56de",
    },
    "NBA\u57281946\u5e746\u67086\u65e5\u5728\u7ebd\u7ea6\u6210\u7acb\u3002": {
        "NBA\u5728\u54ea\u91cc\u6210\u7acb": "\u7ebd\u7ea6",
    },
}
DBQA = "qid\ttext_a\ttext_b\tlabel\n" + "".join(
    f"{qid}\t{question}\t{text}\t{int(text == answer)}\n"
    for qid, (question, answer) in enumerate(pair for asked in CONTEXTS.values() for pair in asked.items())
    for text in ("\u66f9\u96ea\u82b9", "\u7ebd\u7ea6", "\u4e00\u767e\u56de", "NBA")
)
CLASSIFIER = {"max_seq_length": LENGTH, "eval_batch_size": 2, "assessment_method": "mrr"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """ernie.txt, cmrc.json, its features and weights; dbqa.tsv, its features and weights."""
    folder = tmp_path_factory.mktemp("inputs")
    characters = sorted(set("".join([*CONTEXTS, DBQA])) - set(" \t\n"))
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "nba", "1946", *(c.lower() for c in characters), "[UNK]"]
    vocab = folder / "ernie.txt"
    vocab.write_text("".join(f"{t}\t{i}\n" for i, t in enumerate(dict.fromkeys(tokens))), encoding="utf-8")
    paragraphs = [
        {"context": context, "qas": [
            {"id": f"{at}-{number}", "question": question,
             "answers": [{"text": answer, "answer_start": context.index(answer)}]}
            for number, (question, answer) in enumerate(asked.items())
        ]} for at, (context, asked) in enumerate(CONTEXTS.items())
    ]  # fmt: skip
    data = folder / "cmrc.json"
    data.write_text(json.dumps({"version": "1.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    options = SpanOptions(LENGTH, 16, "step")
    convert_squad(SquadConversion(data, vocab, folder / "cmrc", True, span=options, dataset_format="numpy"))
    (folder / "dbqa.tsv").write_text(DBQA, encoding="utf-8")
    layouts = {"dbqa": KNOWN_LAYOUTS["dbqa"], "pairs": TextLayout("tsv", "text_a", "text_b", "label")}
    for name, layout in layouts.items():
        convert_classification(
            ClassificationConversion(folder / "dbqa.tsv", vocab, folder / name, layout, dataset_format="numpy")
        )
    write_weights(folder / "weights", vocab)
    return folder


def exported(run: Path, folder: Path) -> Path:
    """The run as ONNX graph."""
    export.main(flags({"export_ckpt_file": run, "export_file_name": folder / "m", "file_format": "ONNX",
                       "packed": "false", "verify": "false"}))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def reading(inputs, tmp_path_factory) -> dict[str, Path]:
    """A run of reading comprehension scored as CMRC, and its export."""
    folder = tmp_path_factory.mktemp("reading")
    run_squad.main(flags({
        "do_train": "true", "do_eval": "true", "epoch_num": 2, "train_batch_size": 3, "assessment_method": "cmrc",
        "train_data_file_path": inputs / "cmrc", "eval_json_path": inputs / "cmrc.json", "max_answer_length": 100,
        "max_seq_length": LENGTH, "doc_stride": 16, "stride_is": "step", "optimizer.learning_rate": "1e-2",
        "load_pretrain_checkpoint_path": inputs / "weights", "save_finetune_checkpoint_path": folder / "run",
    }))  # fmt: skip
    return {"data": inputs / "cmrc.json", "run": folder / "run", "export": exported(folder / "run", folder / "onnx")}


def asked_again(model: Path, data: Path, folder: Path, flag: str = "eval_json_path") -> tuple[dict, dict]:
    """eval.json and cell.json of an export."""
    evaluate_cell.main([str(model), f"--{flag}", str(data), "--output_dir", str(folder)])
    return read_json(folder / "eval.json"), read_json(folder / evaluate_cell.CELL)


def test_a_run_is_scored_with_its_metric(reading):
    scores, predictions = read_json(reading["run"] / "eval.json"), read_json(reading["run"] / "predictions.json")
    wanted = cmrc.evaluate(read_json(reading["data"]), predictions)
    assert {name: scores[name] for name in wanted} == wanted and (scores["total"], scores["skip"]) == (3, 0)
    evaluations = [json.loads(line) for line in (reading["run"] / "metrics.jsonl").read_text().splitlines()]
    assert max(line["average"] for line in evaluations if "average" in line) == scores["average"]
    texts = {f"{at}-{n}": context for at, (context, asked) in enumerate(CONTEXTS.items()) for n in range(len(asked))}
    assert all(answer and answer in texts[name] for name, answer in predictions.items())
    assert "assessment_method: cmrc\n" in (reading["run"] / "config.yaml").read_text()


def test_an_export_is_scored_with_the_metric_of_its_run(reading, inputs, tmp_path):
    manifest = read_manifest(reading["export"])
    assert manifest.task["assessment_method"] == "cmrc" and manifest.task["max_answer_length"] == 100
    assert manifest.tokenizer.sha256 == sha256_of(inputs / "ernie.txt")
    scores, cell = asked_again(reading["export"], reading["data"], tmp_path / "cell")
    wanted = read_json(reading["run"] / "eval.json")
    for name in ("exact_match", "f1", "average", "total", "skip", "questions"):
        assert scores[name] == wanted[name]
    assert (cell["metric"], cell["score"]) == ("average", wanted["average"])
    quantize.main(flags({"model": reading["export"], "output_dir": tmp_path / "int8", "max_drop": 100,
                         "eval_json_path": reading["data"]}))  # fmt: skip
    made = read_manifest(tmp_path / "int8")
    assert made.task == manifest.task and made.quantization.metric == "average"
    assert made.quantization.metric_before == wanted["average"]


def test_a_manifest_from_before_means_squad(reading, tmp_path):
    values = read_json(reading["export"] / FILE_NAME)
    model = tmp_path / "old"
    model.mkdir()
    for file in reading["export"].iterdir():
        (model / file.name).symlink_to(file)
    (model / FILE_NAME).unlink()
    del values["task"]["assessment_method"]
    write_json(model / FILE_NAME, values)
    scores, cell = asked_again(model, reading["data"], tmp_path / "cell")
    wanted = squad.evaluate(read_json(reading["data"]), read_json(tmp_path / "cell/predictions.json"))
    assert {name: scores[name] for name in wanted} == wanted and "average" not in scores and cell["metric"] == "f1"
    assert made_with(read_manifest(model))["assessment_method"] == "squad"  # so `evaluate` knows it from one of cmrc
    write_json(model / FILE_NAME, values | {"task": values["task"] | {"assessment_method": "rouge"}})
    with pytest.raises(UserError, match=r"task.assessment_method: expected one of squad, cmrc, got 'rouge'"):
        asked_again(model, reading["data"], tmp_path / "cell")


def test_an_export_answers_in_the_words_of_the_text(reading, capsys):
    context, asked = next(iter(CONTEXTS.items()))
    predict.main(["--model", str(reading["export"]), "--output_format", "json", f"{next(iter(asked))}\t{context}"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])["answer"]
    assert answer and answer in context


@pytest.fixture(scope="module")
def ranking(inputs, tmp_path_factory) -> dict[str, Path]:
    """A run whose candidates are ranked, and its export."""
    folder = tmp_path_factory.mktemp("ranking")
    run_classifier.main(flags({
        **CLASSIFIER, "do_train": "true", "do_eval": "true", "epoch_num": 2, "train_batch_size": 4,
        "train_data_file_path": inputs / "dbqa", "eval_data_file_path": inputs / "dbqa",
        "optimizer.learning_rate": "1e-2", "load_pretrain_checkpoint_path": inputs / "weights",
        "save_finetune_checkpoint_path": folder / "run",
    }))  # fmt: skip
    return {"run": folder / "run", "export": exported(folder / "run", folder / "onnx")}


def test_candidates_are_ranked_in_training_and_in_exports(inputs, ranking, tmp_path, capsys):
    scores = read_json(ranking["run"] / "eval.json")
    entries = [json.loads(line) for line in (ranking["run"] / "predictions.jsonl").read_text().splitlines()]
    found = []
    for qid in range(3):
        own = [entry for entry in entries if entry["qid"] == qid]
        own.sort(key=lambda entry: -entry["probabilities"]["1"])
        assert len(own) == 4
        found.append(1 / (1 + [entry["gold"] for entry in own].index("1")))
    assert scores["mrr"] == pytest.approx(sum(found) / 3) and {"accuracy", "f1"} <= scores.keys()
    run_classifier.main(flags({
        **CLASSIFIER, "do_eval": "true", "eval_data_file_path": inputs / "dbqa", "eval_data_shuffle": "true",
        "load_finetune_checkpoint_path": ranking["run"] / "best", "save_finetune_checkpoint_path": tmp_path / "again",
    }))  # fmt: skip
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {name: scores[name] for name in ("accuracy", "f1", "mrr")}
    again, cell = asked_again(ranking["export"], inputs / "dbqa", tmp_path / "cell", "eval_data_file_path")
    for name in ("accuracy", "f1", "mcc", "mrr"):
        assert again[name] == pytest.approx(scores[name], abs=1e-12)
    assert cell["metric"] == "mrr" and cell["score"] == 100 * again["mrr"]


def test_what_cannot_be_ranked_is_refused(inputs, ranking, tmp_path):
    settings = {**CLASSIFIER, "do_eval": "true", "save_finetune_checkpoint_path": tmp_path / "run",
                "load_finetune_checkpoint_path": ranking["run"] / "best"}  # fmt: skip
    with pytest.raises(UserError, match=r"pairs: does not say which candidates belong to one question; convert it"):
        run_classifier.main(flags({**settings, "eval_data_file_path": inputs / "pairs"}))
    three = tmp_path / "three.tsv"
    three.write_text(DBQA.replace("\t0\n", "\t2\n", 1), encoding="utf-8")
    layout = TextLayout("tsv", "text_a", "text_b", "label", qid="qid")
    convert_classification(
        ClassificationConversion(three, inputs / "ernie.txt", tmp_path / "three", layout, dataset_format="numpy")
    )
    with pytest.raises(UserError, match="has 3 labels; --assessment_method mrr ranks by the second of two"):
        run_classifier.main(flags({
            **CLASSIFIER, "do_train": "true", "do_eval": "true", "train_data_file_path": tmp_path / "three",
            "eval_data_file_path": tmp_path / "three", "save_finetune_checkpoint_path": tmp_path / "run",
            "load_pretrain_checkpoint_path": inputs / "weights",
        }))  # fmt: skip


@pytest.mark.parametrize(
    ("command", "data", "message"),
    [
        (run_classifier, "cmrc", "cmrc: holds features for span, needed are those for classification or regression"),
        (run_ner, "dbqa", "dbqa: holds features for classification, needed are those for tagging"),
        (run_squad, "dbqa", "dbqa: holds features for classification, needed are those for span"),
    ],
)
def test_features_of_another_task_are_refused(inputs, tmp_path, command, data, message):
    settings = {"max_seq_length": LENGTH, "load_pretrain_checkpoint_path": inputs / "weights",
                "save_finetune_checkpoint_path": tmp_path / "run"}  # fmt: skip
    with pytest.raises(UserError, match=message):
        command.main(flags({**settings, "do_train": "true", "train_data_file_path": inputs / data}))
