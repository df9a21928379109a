"""What bert_process must not accept: every case ends with exit code 2 and a line that names it, and writes nothing."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bert import bert_process
from models.common.cli import run_main
from tests.cpp.deployment import contents, editing
from tests.recipes.test_bert_process import LENGTH, PAD, STRIDE, export_to, flags, infer, process
from tests.tiny import write_squad, write_weights

STATIC = ["--model_path", "static"]  # of two --model_path the last one counts


@pytest.fixture(scope="module")
def finished(tmp_path_factory, minilm_dir) -> Path:
    """A folder after preprocess and inference: dynamic/ and static/ (exports), data.json, prep/, out/."""
    folder = tmp_path_factory.mktemp("finished")
    weights = write_weights(folder / "weights", minilm_dir / "vocab.txt", groups=("heads.span",))
    export_to(folder / "dynamic", weights, packed="false", doc_stride=STRIDE)
    export_to(folder / "static", weights, packed="false", doc_stride=STRIDE, dynamic="false", export_batch_size=4)
    shutil.rmtree(weights)
    data = write_squad(folder / "data.json")
    process(folder / "dynamic", "preprocess", folder / "prep", "--eval_json_path", data)
    infer(folder / "dynamic", folder / "prep", folder / "out")
    return folder


@pytest.fixture
def case(finished, tmp_path, monkeypatch) -> Path:
    """A copy to damage, and the working folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(case: Path, mode: str, arguments: list[str], says: str, capsys) -> None:
    before = contents(case)
    given = {"model_path": "dynamic", "process_mode": mode, "save_dir": "prep", "eval_json_path": "data.json"}
    if mode == "postprocess":
        given["result_dir"] = "out"
    for name in [word.removeprefix("without:") for word in arguments if word.startswith("without:")]:
        del given[name]
    command = [*flags(given), *(word for word in arguments if not word.startswith("without:"))]
    with pytest.raises(SystemExit) as ended:
        run_main(bert_process.main, command)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.search(rf"^error: .*{says}", error, re.M | re.S), error
    assert contents(case) == before


# --- results ---------------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """What changes the values of the fourth result."""

    def apply(case: Path) -> None:
        path = case / "out/3_1.npy"
        np.save(path, change(np.load(path)), allow_pickle=True)

    return apply


def with_nan(array: np.ndarray) -> np.ndarray:
    array[0, 2] = np.nan
    return array


def zipped(case: Path) -> None:
    path = case / "out/3_1.npy"
    np.savez(case / "x.npz", np.load(path))
    (case / "x.npz").rename(path)


def huge(case: Path) -> None:
    """A header that promises more than there is."""
    path = case / "out/3_1.npy"
    path.write_bytes(path.read_bytes().replace(b"(1, ", b"(9" + b"9" * 7 + b", ", 1))


def cut(case: Path) -> None:
    path = case / "out/3_1.npy"
    path.write_bytes(path.read_bytes()[:-5])


RESULTS = {
    "missing": (lambda case: (case / "out/3_1.npy").unlink(), "1 of 36 result files are missing, the first is 3_1"),
    "none": (lambda case: shutil.rmtree(case / "out"), "out: no such folder; run the inference first"),
    "all missing": (
        lambda case: [path.unlink() for path in (case / "out").iterdir()], "out: 36 of 36 .*, the first is 0_0.npy",
    ),
    "surplus": (
        lambda case: shutil.copy(case / "out/0_0.npy", case / "out/18_0.npy"), "out: 18_0.npy is no result of the 18",
    ),
    "third output": (lambda case: shutil.copy(case / "out/0_0.npy", case / "out/0_2.npy"), "out: 0_2.npy is no result"),
    "length": (rewritten(lambda array: array[:, :-1]), r"3_1.npy: holds float32 \[1, \d+\], end_logits is float32 \[1"),
    "rank": (rewritten(lambda array: array[0]), r"3_1.npy: holds float32 \[\d+\], end_logits is float32 \[1"),
    "batch": (rewritten(lambda array: np.tile(array, (2, 1))), r"3_1.npy: holds float32 \[2, "),
    "type": (rewritten(lambda array: array.astype(np.float64)), "3_1.npy: holds float64 .*, end_logits is float32"),
    "half": (rewritten(lambda array: array.astype(np.float16)), "3_1.npy: holds float16 .*, end_logits is float32"),
    "not a number": (rewritten(with_nan), "3_1.npy: end_logits is not a finite number"),
    "infinite": (rewritten(lambda array: array + np.inf), "3_1.npy: end_logits is not a finite number"),
    "objects": (rewritten(lambda array: array.astype(object)), "3_1.npy: not a readable .npy file .*run the inference"),
    "pickle": (
        lambda case: (case / "out/3_1.npy").write_bytes(pickle.dumps(np.zeros(3))), "3_1.npy: not a readable .npy file",
    ),
    "zip": (zipped, "3_1.npy: not a readable .npy file"),
    "text": (lambda case: (case / "out/3_1.npy").write_text("no array"), "3_1.npy: not a readable .npy file"),
    "empty": (lambda case: (case / "out/3_1.npy").write_bytes(b""), "3_1.npy: not a readable .npy file"),
    "truncated": (cut, "3_1.npy: not a readable .npy file"),
    "huge": (huge, "3_1.npy: not a readable .npy file"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_damaged_and_foreign_results(case, capsys, name):
    damage, says = RESULTS[name]
    damage(case)
    refused(case, "postprocess", [], says, capsys)


# --- preprocess and postprocess must agree ---------------------------------------------------------------------------


def manifest(change: Callable[[dict], object], model: str = "dynamic") -> Callable[[Path], None]:
    return lambda case: editing(change)(case / model / "manifest.json")


def other_weights(values: dict) -> None:
    values["source_weights"]["sha256"] = "0" * 64


def other_data(case: Path) -> None:
    path = case / "data.json"
    path.write_text(path.read_text().replace("Ida Holm", "Eda Holm"))


def damaged_features(case: Path) -> None:
    path = next((case / "prep/features").glob("*.input_ids.npy"))
    path.write_bytes(path.read_bytes()[:-4] + b"\1\0\0\0")


def record(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda case: editing(change)(case / "prep/preprocess.json")


DISAGREEMENTS = {
    "weights": (manifest(other_weights), "prep: was preprocessed for another model than dynamic .weights differ"),
    "stride": (manifest(lambda m: m["task"].update(doc_stride=8)), "made with doc_stride 12, the model's is 8"),
    "meaning": (manifest(lambda m: m["task"].update(stride_is="step")), "made with stride_is overlap, the model's is"),
    "length": (manifest(lambda m: m["task"].update(max_seq_length=64)), "made with max_seq_length 40, the model's is"),
    "vocabulary": (
        manifest(lambda m: m["tokenizer"].update(sha256="0" * 64)), "made with another vocabulary than the model's",
    ),
    "letters": (
        manifest(lambda m: m["tokenizer"].update(lower_case=False)),
        "made with do_lower_case True, the model's is False",
    ),
    "inputs": (manifest(lambda m: m["inputs"].reverse()), "another model than dynamic .inputs differ"),
    "data": (other_data, "prep: made from another file than data.json; preprocess again"),
    "no data": (lambda case: (case / "data.json").unlink(), "data.json: file not found"),
    "features": (damaged_features, r"input_ids.npy: damaged \(its checksum changed\)"),
    "samples": (record(lambda r: r.update(samples="0" * 64)), "another model than dynamic .samples differ"),
    "no record": (lambda case: (case / "prep/preprocess.json").unlink(), "prep: has no preprocess.json, which"),
    "bad record": (record(lambda r: r["layout"].pop("pad_to_max_length")), "layout.pad_to_max_length is missing"),
    "no folder": (lambda case: shutil.rmtree(case / "prep"), "prep: has no preprocess.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_results_of_another_model_or_other_data(case, capsys, name):
    damage, says = DISAGREEMENTS[name]
    damage(case)
    refused(case, "postprocess", [], says, capsys)


# --- flags -----------------------------------------------------------------------------------------------------------

FLAGS = [
    ("postprocess", ["--doc_stride", "128"], "--doc_stride 128: the model's manifest says 12; leave the flag out"),
    ("preprocess", ["--doc_stride", "128"], "--doc_stride 128: the model's manifest says 12; leave the flag out"),
    ("postprocess", ["--max_seq_length", "384"], f"--max_seq_length 384: the model's manifest says {LENGTH}"),
    ("postprocess", ["--n_best_size", "5"], "--n_best_size 5: the model's manifest says 20"),
    ("postprocess", ["--max_answer_length", "9"], "--max_answer_length 9: the model's manifest says 30"),
    ("postprocess", [PAD], "prep: was preprocessed with pad_to_max_length False, not True"),
    ("postprocess", ["--per_device_eval_batch_size", "4"], "with per_device_eval_batch_size 1, not 4"),
    ("postprocess", STATIC, f"the graph takes rows of {LENGTH} tokens and no others; give --pad_to_max_length"),
    ("postprocess", ["without:result_dir"], "--result_dir is needed"),
    ("postprocess", ["--preprocessing_num_workers", "2"], "--preprocessing_num_workers is of --process_mode pre"),
    ("preprocess", STATIC, f"the graph takes rows of {LENGTH} tokens and no others; give --pad_to_max_length"),
    ("preprocess", [*STATIC, PAD, "--per_device_eval_batch_size", "4"], "--batchsize 4 puts together from files of"),
    ("preprocess", ["--result_dir", "out"], "--result_dir is of --process_mode postprocess"),
    ("preprocess", ["--per_device_eval_batch_size", "-1"], "--per_device_eval_batch_size must be positive, got -1"),
    ("preprocess", ["--preprocessing_num_workers", "0"], "--preprocessing_num_workers must be positive, got 0"),
    ("preprocess", ["--offline_download"], "leave them or --eval_json_path out"),
    ("preprocess", ["--dataset_name", "squad"], "leave them or --eval_json_path out"),
    ("preprocess", ["--eval_data_file_path", "prep/features"], "takes --eval_json_path, not --eval_data_file_path"),
    ("preprocess", ["--eval_json_path", "none.json"], "none.json: JSON file not found"),
    ("preprocess", ["--model_path", "prep"], "prep/manifest.json: file not found"),
    ("preprocess", ["--save_dir", "data.json"], "data.json"),
    ("preprocess", ["--save_dir", "data.json/prep"], "data.json/prep"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "arguments", "says"), FLAGS)
def test_flags(case, capsys, mode, arguments, says):
    refused(case, mode, arguments, says, capsys)


# --- what preprocess is given ----------------------------------------------------------------------------------------


def foreign(case: Path) -> None:
    (case / "prep/input_ids/notes.txt").write_text("mine")


def cut_graph(case: Path) -> None:
    path = case / "dynamic/m.onnx"
    path.write_bytes(path.read_bytes()[:-100])


INPUTS = {
    "vocabulary": (lambda case: (case / "dynamic/vocab.txt").open("a").write("x\n"), "vocab.txt is not the file"),
    "graph": (cut_graph, "m.onnx is not the file that was exported"),
    "format": (
        manifest(lambda m: (m["artefact"].update(format="mindir"), [t.update(shape=[1, LENGTH]) for t in
                            (*m["inputs"], *m["outputs"])])), "dynamic: holds mindir; give an ONNX export",
    ),
    "folder name": (
        manifest(lambda m: m["inputs"][0].update(name="../../input_ids")), "'../../input_ids' cannot be the name of a",
    ),
    "ids": (manifest(lambda m: m["sample_inputs"][0].update(range=[0, 9])), r"input_ids: values \d+..\d+, the"),
    "no stride": (manifest(lambda m: m["task"].pop("doc_stride")), "task.doc_stride: expected a whole number"),
    "no vocabulary": (manifest(lambda m: m.update(tokenizer=None)), "dynamic: not a model with a vocabulary"),
    "foreign file": (foreign, "prep/input_ids/notes.txt: is no file of preprocess; choose another --save_dir"),
    "features": (
        lambda case: (case / "prep/features/features.json").unlink(), "features: holds files that are not converted",
    ),
    "json": (lambda case: (case / "data.json").write_text('{"data": [{"para'), "data.json"),
    "layout": (lambda case: (case / "data.json").write_text('{"data": [{}]}'), 'the key "paragraphs" is missing'),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_what_preprocess_cannot_use(case, capsys, name):
    damage, says = INPUTS[name]
    damage(case)
    refused(case, "preprocess", [], says, capsys)
