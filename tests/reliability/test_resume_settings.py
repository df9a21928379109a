"""The same run folder under other settings: what may change is honoured, what may not is refused, nothing is mixed."""

import json
import shutil
from pathlib import Path

import pytest

from data_tools.converters.classification import ClassificationConversion, convert_classification
from models.bert.run_classifier import main
from models.common.errors import UserError
from models.common.train.metrics_log import read_metrics
from models.common.weights.reading import read_checkpoint
from tests.commands import flags
from tests.recipes.test_run_classifier import LAYOUT, write_texts
from tests.tiny import write_weights


@pytest.fixture(scope="module")
def settings(tmp_path_factory, minilm_dir) -> dict:
    folder, vocab = tmp_path_factory.mktemp("settings"), minilm_dir / "vocab.txt"
    convert_classification(ClassificationConversion(
        write_texts(folder / "texts.tsv"), vocab, folder / "train", layout=LAYOUT, max_seq_length=32,
        dataset_format="numpy",
    ))  # fmt: skip
    return {
        "do_train": "true", "do_eval": "true", "epoch_num": 2, "train_batch_size": 9, "max_seq_length": 32,
        "train_data_file_path": folder / "train", "eval_data_file_path": folder / "train",
        "load_pretrain_checkpoint_path": write_weights(folder / "weights", vocab),
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    start(settings, folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of the finished run, for a test to change."""
    return shutil.copytree(finished, tmp_path / "run")


def start(settings: dict, folder: Path, **changes: object) -> None:
    settings = {**settings, "save_finetune_checkpoint_path": folder, **changes}
    main(flags(settings))


def test_another_score_chooses_anew(settings, folder):
    start(settings, folder, assessment_method="mcc")
    scored = [entry for entry in read_metrics(folder / "metrics.jsonl") if entry["group"] == "eval"]
    assert len(scored) == 3  # both epochs, and what the new score made of the end
    assert json.loads((folder / "eval.json").read_text())["mcc"] == scored[-1]["mcc"]
    assert "assessment_method: mcc" in (folder / "config.yaml").read_text()


def test_other_names_of_the_classes_are_another_run(settings, folder, tmp_path):
    renamed = shutil.copytree(settings["train_data_file_path"], tmp_path / "renamed")
    sidecar = json.loads((renamed / "features.json").read_text())
    sidecar["labels"][0] = "art"
    (renamed / "features.json").write_text(json.dumps(sidecar))
    with pytest.raises(UserError, match=r"holds another run.*\n  labels: "):
        start(settings, folder, train_data_file_path=renamed, eval_data_file_path=renamed)
    assert read_checkpoint(folder / "best").labels[0] == "food"


def test_without_evaluation_the_best_weights_stay_the_best(settings, finished, folder):
    start(settings, folder, do_eval="false")
    assert (folder / "classifier.ckpt").read_bytes() == (finished / "classifier.ckpt").read_bytes()
