"""The classification command: classes with the real MiniLM, the rest on a tiny model; what is written and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.feature_store import load_features
from data_tools.readers.classification import TextLayout
from models.bert.run_classifier import main, parse
from models.common.config import leaves
from models.common.errors import UserError
from models.common.finetune.classification import ClassificationConfig, ClassificationTask
from models.common.weights.canonical import save_companions
from models.common.weights.reading import read_checkpoint
from tests.commands import flags
from tests.record_files import write_foreign
from tests.tiny import assert_heads_are_named, write_pretrained, write_weights

SENTENCES = {
    "weather": ("The rain stopped at noon.", "A cold wind came from the sea.", "Snow fell on the hills all night."),
    "food": ("The soup needs more salt.", "She baked bread with rye.", "Fresh plums are sold in the market."),
    "sport": ("The goalkeeper saved two shots.", "He ran the last mile alone.", "Their team won the cup again."),
}
REPEATS = 4
LAYOUT = TextLayout("tsv", "text", label="label")
SCORES = TextLayout("tsv", "text", "other", "label", regression=True)


def write_texts(path: Path, regression: bool = False, repeats: int = REPEATS) -> Path:
    """Three classes, or pairs with a score: how much of their length the shorter one has."""
    lines = ["text\tlabel" if not regression else "text\tother\tlabel"]
    texts = [(text, label) for label, group in SENTENCES.items() for text in group] * repeats
    for (text, label), (other, _) in zip(texts, texts[1:] + texts[:1], strict=True):
        score = min(len(text), len(other)) / max(len(text), len(other))
        lines.append(f"{text}\t{other}\t{score:.3f}" if regression else f"{text}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("classifier")
    vocab = minilm_dir / "vocab.txt"

    def convert(name: str, **settings) -> Path:
        regression = settings.get("layout") is SCORES
        data = write_texts(folder / f"{name}.tsv", regression)
        settings = {"layout": LAYOUT, "max_seq_length": 32, "dataset_format": "numpy", **settings}
        convert_classification(ClassificationConversion(data, vocab, folder / name, **settings))
        return folder / name

    return {
        "train": convert("train"),
        "mindrecord": convert("records", dataset_format="mindrecord"),
        "unlabelled": convert("unlabelled", labelled=False, label_file_path=folder / "train"),
        "scores": convert("scores", layout=SCORES),
        "weights": write_weights(folder / "weights", vocab),
        "vocab": vocab,
    }


def run(capsys=None, **settings: object) -> dict:
    main(flags(settings))
    return json.loads(capsys.readouterr().out.splitlines()[-1]) if capsys else {}


def training(inputs, run_folder: Path, capsys=None, **changes: object) -> dict:
    settings = {
        "do_train": "true", "do_eval": "true", "epoch_num": 1, "train_batch_size": 9, "max_seq_length": 32,
        "train_data_file_path": inputs["train"], "eval_data_file_path": inputs["train"],
        "load_pretrain_checkpoint_path": inputs["weights"], "save_finetune_checkpoint_path": run_folder,
        "optimizer.learning_rate": "1e-2", "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, **changes,
    }  # fmt: skip
    return run(capsys, **settings)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    training(inputs, folder, epoch_num=25, eval_steps=100, save_checkpoint_steps=100)
    return folder


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_the_real_weights_learn(inputs, tmp_path, capsys, minilm_dir):
    scores = training(
        inputs, tmp_path, capsys, load_pretrain_checkpoint_path=minilm_dir, epoch_num=4, eval_steps=100,
        save_checkpoint_steps=100, **{"optimizer.learning_rate": "3e-4"},
    )  # fmt: skip
    assert scores["accuracy"] > 0.8


def test_it_learns_and_scores_as_scikit_learn_does(trained):
    scores, entries = json.loads((trained / "eval.json").read_text()), predictions(trained)
    assert scores["accuracy"] > 0.8
    found, gold = [entry["label"] for entry in entries], [entry["gold"] for entry in entries]
    assert gold == [label for label, group in SENTENCES.items() for _ in group] * REPEATS
    assert scores["accuracy"] == accuracy_score(gold, found)
    assert scores["f1"] == f1_score(gold, found, average="macro")
    assert scores["mcc"] == matthews_corrcoef(gold, found)
    for entry in entries:
        assert entry["probability"] == max(entry["probabilities"].values())
        assert sum(entry["probabilities"].values()) == pytest.approx(1)
    assert read_checkpoint(trained / "best").labels == ("food", "sport", "weather")


def test_evaluation_alone_gives_the_same_and_needs_no_labels(inputs, trained, tmp_path, capsys):
    settings = {
        "do_eval": "true", "load_finetune_checkpoint_path": trained / "classifier.ckpt", "max_seq_length": 32,
        "save_finetune_checkpoint_path": tmp_path / "again", "eval_data_file_path": inputs["mindrecord"],
    }  # fmt: skip
    scores = run(capsys, **settings, assessment_method="Mcc")
    wanted = json.loads((trained / "eval.json").read_text())
    assert scores == {"mcc": wanted["mcc"]}
    changes = {"eval_data_file_path": inputs["unlabelled"], "save_finetune_checkpoint_path": tmp_path / "none"}
    run(None, **(settings | changes), eval_data_shuffle="true")
    assert "accuracy" not in json.loads((tmp_path / "none/eval.json").read_text())
    labels = [entry["label"] for entry in predictions(trained)]
    assert [entry["label"] for entry in predictions(tmp_path / "none")] == labels
    assert all("gold" not in entry for entry in predictions(tmp_path / "none"))


def test_weights_that_name_their_labels_by_number_take_those_of_others(inputs, trained, tmp_path, capsys):
    """transformers' LABEL_0, ...; the features say it, or a file does where they are from elsewhere."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").symlink_to(trained / "best/model.safetensors")
    settings = read_checkpoint(trained / "best").config.to_dict()
    save_companions(weights, settings, trained / "best/vocab.txt", [f"LABEL_{index}" for index in range(3)])
    features = load_features(inputs["train"])
    foreign = write_foreign(tmp_path / "dev.tfrecord", features, {"label": features.scalars["label"]})
    (tmp_path / "labels.txt").write_text("food\nsport\nweather\n")
    wanted = [entry["label"] for entry in predictions(trained)]
    for data, more in ((inputs["train"], {}), (foreign, {"label_file_path": tmp_path / "labels.txt", "num_class": 3})):
        run(capsys, do_eval="true", load_finetune_checkpoint_path=weights, max_seq_length=32, eval_data_file_path=data,
            save_finetune_checkpoint_path=tmp_path / "run", **more)  # fmt: skip
        assert [entry["label"] for entry in predictions(tmp_path / "run")] == wanted


def test_packing_changes_nothing_but_rounding(inputs, tmp_path):
    weights = {}
    for packing in ("true", "false"):
        training(
            inputs, tmp_path / packing, packing=packing, do_eval="false", epoch_num=1, train_batch_size=36,
            train_data_shuffle="false", **{"optimizer.learning_rate": "1e-3", "optimizer.warmup_ratio": 0},
        )  # fmt: skip
        weights[packing] = load_file(tmp_path / packing / "last/model.safetensors")
    steps = {packing: (tmp_path / packing / "metrics.jsonl").read_text().count('"train"') for packing in weights}
    assert steps == {"true": 1, "false": 1}  # one step each: all samples in it
    for name, value in weights["true"].items():
        # AdamW's first step moves every weight by the rate, in the direction of its gradient's sign.
        assert np.median(np.abs(value - weights["false"][name])) < 1e-6, name


def test_numbers_are_learned_and_scored_by_rank(inputs, tmp_path, capsys):
    files = {"train_data_file_path": inputs["scores"], "eval_data_file_path": inputs["scores"]}
    scores = training(inputs, tmp_path, capsys, assessment_method="spearman_correlation", epoch_num=15, **files)
    entries = predictions(tmp_path)
    wanted = spearmanr([entry["value"] for entry in entries], [entry["gold"] for entry in entries]).statistic
    assert scores["spearman_correlation"] == pytest.approx(wanted, abs=1e-12) and wanted > 0.5
    assert load_file(tmp_path / "best/model.safetensors")["heads.classifier.weight"].shape == (1, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_data_file_path": ""}, "--eval_data_file_path is needed"),
        ({"num_class": 4}, "has 3 labels, --num_class says 4"),
        ({"num_class": 1}, "--num_class 1 learns a number"),
        ({"assessment_method": "spearman_correlation"}, "its labels are classes, not numbers"),
        ({"assessment_method": "spearman_correlation", "num_class": 2}, "--num_class must be 1"),
        ({"assessment_method": "spearman_correlation", "label_file_path": "/nonexistent"}, "which has no label"),
        ({"label_file_path": "x.txt"}, "names its labels itself"),
        ({"max_seq_length": 8}, r"give --max_seq_length \d+"),
        ({"do_lower_case": "false"}, "give --do_lower_case true"),
        ({"packing": "false", "max_samples_per_row": 4}, "--max_samples_per_row 4 has no use with --packing false"),
        ({"optimizer.name": "momentum", "optimizer.eps": 1e-6}, "--optimizer.eps 1e-06 has no use with momentum"),
        ({"loss_scale.window": 4}, "--loss_scale.window has no use while the loss is not scaled"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(inputs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        training(inputs, tmp_path, **changes)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_weights_of_pretraining_go_straight_in(inputs, tmp_path, capsys):
    pretrained = write_pretrained(tmp_path / "bert", inputs["vocab"])
    training(inputs, tmp_path / "run", load_pretrain_checkpoint_path=pretrained, do_eval="false")
    assert_heads_are_named(capsys.readouterr().out)


def test_classes_beyond_those_of_the_training_data_are_found_before_training(inputs, tmp_path):
    features = load_features(inputs["train"])
    label = features.scalars["label"].copy()
    label[4:6] = 3
    foreign = write_foreign(tmp_path / "dev.tfrecord", features, {"label": label})
    with pytest.raises(UserError, match=r"dev\.tfrecord: label id 3, but there are 3 labels.*2 of 36 are others"):
        training(inputs, tmp_path / "run", eval_data_file_path=foreign)
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_unlabelled_data_cannot_say_which_weights_are_best(inputs, tmp_path):
    with pytest.raises(UserError, match="has no labels, so the best weights could not be told"):
        training(inputs, tmp_path, eval_data_file_path=inputs["unlabelled"])
    with pytest.raises(UserError, match="has no labels to train on"):
        training(inputs, tmp_path, train_data_file_path=inputs["unlabelled"])


def test_every_flag_of_the_original_readme_is_there():
    names = {name for name, _ in leaves(ClassificationConfig)}
    assert names >= ClassificationTask.free_to_change
    assert names >= {
        "device_target", "do_train", "do_eval", "assessment_method", "device_id", "epoch_num", "num_class",
        "save_finetune_checkpoint_path", "load_pretrain_checkpoint_path", "load_finetune_checkpoint_path",
        "train_data_shuffle", "eval_data_shuffle", "train_data_file_path", "eval_data_file_path", "schema_file_path",
    }  # fmt: skip
    assert parse(["--assessment_method", "Spearman_correlation"]).assessment_method == "spearman_correlation"
