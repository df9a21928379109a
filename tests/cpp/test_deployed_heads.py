"""Every task of every family on its way to C++: export, run_infer_310.sh, the answers and scores of MindSpore."""

import json
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.converters.tagging import TaggingConversion, convert_tagging
from data_tools.readers.tagging import TaggingLayout
from models.common.encoder_config import EncoderConfig
from models.common.export.manifest import read_manifest
from models.common.tagging import tag_names
from models.common.weights.canonical import save_canonical
from models.common.weights.names import canonical_shapes
from tests.commands import flags
from tests.recipes.test_run_classifier import LAYOUT, SCORES, write_texts
from tests.recipes.test_run_ner import sentences, write_lines
from tests.tiny import TINY, write_squad

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_infer_310.sh"
LENGTH, ROWS, PER_ROW = 32, 3, 4
TAGS = tag_names(("address", "name"), "BIO")
# task -> (groups of the weights, labels, the command that scores in MindSpore and its flags)
MODELS = {
    "classes": (("pooler", "heads.classifier"), ["food", "sport", "weather"], "run_classifier", {}),
    "numbers": (("pooler", "heads.classifier"), None, "run_classifier", {"assessment_method": "spearman_correlation"}),
    "linear": (("heads.tagger",), TAGS, "run_ner", {"unit": "word"}),
    "crf": (("heads.tagger", "heads.crf"), TAGS, "run_ner", {"unit": "word", "use_crf": "true"}),
    "lstm": (
        ("heads.lstm", "heads.tagger", "heads.crf"),
        TAGS,
        "run_ner",
        {"unit": "word", "use_crf": "true", "with_lstm": "true"},
    ),
    "answers": (("heads.span",), None, "run_mrc", {"doc_stride": 8, "max_query_length": 12}),
}
CONFIGS = {"bert": TINY, "ernie": replace(TINY, hidden_act="relu", layer_norm_eps=1e-5)}
# Answers of BERT are in test_run_infer_310; what ERNIE's other heads do differently they do before their heads.
CASES = [*(("bert", task) for task in MODELS if task != "answers"),
         *(("ernie", task) for task in ("classes", "crf", "answers"))]  # fmt: skip


def command_of(family: str, name: str) -> ModuleType:
    return import_module(f"models.{family}.{name}")


def write_weights(
    folder: Path, vocab: Path, config: EncoderConfig, groups: tuple[str, ...], labels: list[str] | None
) -> Path:
    """Random weights, large enough that the answers differ from sample to sample."""
    rng = np.random.default_rng(3)
    shapes = canonical_shapes(config, groups, len(labels or [0]))
    tensors = {
        name: np.full(shape, ".norm.weight" in name, np.float32)
        if len(shape) == 1
        else rng.normal(0.0, 0.8, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_canonical(folder, config, tensors, vocab, labels=labels)
    return folder


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory, minilm_dir, program) -> dict:
    """Data, weights, and MindSpore's predictions and scores of one model."""
    del program  # built before anything here is timed
    family, task = request.param
    groups, labels, command, more = MODELS[task]
    folder, vocab = tmp_path_factory.mktemp(f"{family} {task}"), minilm_dir / "vocab.txt"
    data = write_data(folder, vocab, command, labels)
    weights = write_weights(folder / "weights", vocab, CONFIGS[family], groups, labels)
    flag = "eval_json_path" if data.suffix == ".json" else "eval_data_file_path"
    command_of(family, command).main(flags({
        "do_eval": "true", flag: data, "load_finetune_checkpoint_path": weights,
        "save_finetune_checkpoint_path": folder / "mindspore", "max_seq_length": LENGTH, **more,
    }))  # fmt: skip
    settings = more if task == "answers" else {}
    return {"family": family, "folder": folder, "data": data, "weights": weights, "labels": labels, "export": settings}


def write_data(folder: Path, vocab: Path, command: str, labels: list[str] | None) -> Path:
    """Questions, or features for the other tasks."""
    target = folder / "dev"
    if command == "run_mrc":
        return write_squad(folder / "dev.json")
    if command == "run_classifier":
        layout = SCORES if labels is None else LAYOUT
        raw = write_texts(folder / "a.tsv", labels is None, repeats=1)  # ties would be broken by rounding
        convert_classification(ClassificationConversion(
            raw, vocab, target, layout=layout, max_seq_length=LENGTH, dataset_format="numpy"
        ))  # fmt: skip
        return target
    raw = write_lines(folder / "a.json", sentences())
    (folder / "tags.txt").write_text("\n".join(TAGS))
    convert_tagging(TaggingConversion(
        raw, vocab, target, TaggingLayout("cluener", "word"), label_file_path=folder / "tags.txt",
        max_seq_length=LENGTH, dataset_format="numpy",
    ))  # fmt: skip
    return target


@pytest.mark.parametrize("packed", ["true", "false"])
def test_the_program_gives_mindspores_answers(case, tmp_path, packed):
    command_of(case["family"], "export").main(flags({
        "export_ckpt_file": case["weights"], "export_file_name": tmp_path / "model/tiny", "export_batch_size": ROWS,
        "file_format": "MINDIR_LITE", "max_seq_length": LENGTH, "packed": packed,
        "max_samples_per_row": PER_ROW if packed == "true" else 1, **case["export"],
    }))  # fmt: skip
    check_manifest(case, tmp_path / "model", packed == "true")
    out = tmp_path / "out"
    command = ["bash", SCRIPT, tmp_path / "model", case["data"], "y", "CPU", "0", out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    mindspore = case["folder"] / "mindspore"
    wanted, found = (numbers(json.loads((folder / "eval.json").read_text())) for folder in (mindspore, out))
    assert found == pytest.approx(wanted, abs=1e-5)
    if case["data"].suffix == ".json":
        wanted, found = (json.loads((folder / "predictions.json").read_text()) for folder in (mindspore, out))
        assert found == wanted and len(set(found.values())) > 1
        return
    wanted, found = (
        [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for folder in (mindspore, out)
    )
    names = [name for name in wanted[0] if name in ("label", "gold", "entities", "sentence", "index")]
    assert names
    for one, other in zip(wanted, found, strict=True):
        for name in names:
            assert other[name] == (pytest.approx(one[name]) if isinstance(one[name], float) else one[name])
    check_labels(case, out, found)


def check_manifest(case: dict, folder: Path, packed: bool) -> None:
    """It says what the model is."""
    manifest = read_manifest(folder)
    assert manifest.model.name == case["family"] and manifest.model.config == CONFIGS[case["family"]].to_dict()
    assert manifest.labels == (None if case["labels"] is None else tuple(case["labels"]))
    classes = len(case["labels"] or [0])
    sample = (ROWS, PER_ROW) if packed else (ROWS,)
    for output in manifest.outputs:
        wanted = {
            "logits": ("float32", ((ROWS, LENGTH) if output.per == "token" else sample) + (classes,)),
            "tag_ids": ("int32", (ROWS, LENGTH)),
            "start_logits": ("float32", (ROWS, LENGTH)),
            "end_logits": ("float32", (ROWS, LENGTH)),
        }[output.name]
        assert (output.dtype, output.shape) == wanted
    if manifest.task["name"] == "tagging":
        assert (manifest.task["scheme"], manifest.task["unit"]) == ("BIO", "character")


def numbers(scores: dict, prefix: str = "") -> dict[str, float]:
    """The numbers of nested scores, but for the speed."""
    flat = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            flat |= numbers(value, f"{prefix}{name}.")
        elif not name.endswith("_per_second"):
            flat[prefix + name] = value
    return flat


def check_labels(case: dict, out: Path, found: list[dict]) -> None:
    """The program says the labels itself, too."""
    lines = out / "result_Files/labels.txt"
    if case["labels"] is None:
        assert not lines.exists()
        return
    said = lines.read_text().splitlines()
    assert len(said) == len(found)
    if "label" in found[0]:
        assert said == [entry["label"] for entry in found]
        assert len(set(said)) > 1
    else:
        assert {tag for line in said for tag in line.split()} <= set(TAGS)
        assert len({tag for line in said for tag in line.split()}) > 1
    assert "labels: " in (out / "infer.log").read_text()
