"""What is wrong ends in the exit code of its kind and one line that names it; results of an earlier run stay whole."""

import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto

from tests.cpp.deployment import (
    FOLDERS,
    LENGTH,
    Deployed,
    contents,
    copy_of,
    editing,
    infer,
    replace_model,
    run_program,
)

USAGE, MANIFEST, MODEL, INPUT, DEVICE, OUTPUT, PREDICT = range(2, 9)


@pytest.fixture(scope="module")
def earlier(program, packed, tmp_path_factory) -> Path:
    """An output folder with the results of a run that succeeded."""
    folder = tmp_path_factory.mktemp("earlier")
    assert infer(program, packed, folder).returncode == 0
    return folder


@pytest.fixture
def broken(packed, earlier, tmp_path) -> Deployed:
    """A copy to damage, and beside it, in out/, the earlier results."""
    shutil.copytree(earlier, tmp_path / "out")
    return copy_of(packed, tmp_path)


def refused(done, code: int, *words: object) -> None:
    """Exit code, and one line of error that holds the words; nothing on standard output."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert str(word) in done.stderr


def check_refusal(program: Path, broken: Deployed, code: int, *words: object, flags: tuple = (), **options) -> None:
    """The run fails as it should and leaves its output folder as it was, the earlier results in it."""
    output = broken.samples.parent / "out"
    before = contents(output)
    refused(infer(program, broken, output, *flags, **options), code, *words)
    assert contents(output) == before
    assert {path.name for path in output.iterdir()} == {"result_Files", "time_Result"}


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--input_dir is missing"),
        (["--input_dir", "x"], "--mindir_path or --manifest is missing"),
        (["--input_dir", "x", "--mindir_path", "y", "--batch_size", "1"], "unknown flag --batch_size"),
        (["--input_dir", "x", "--mindir_path", "y", "--device_type", "GPU"], "'GPU' is neither CPU nor Ascend"),
        (["--input_dir", "x", "--mindir_path", "y", "--threads", "two"], "--threads: 'two' is not a number"),
        (["--input_dir", "x", "--input_dir", "y"], "--input_dir is given twice"),
        (["samples"], "'samples' is not a flag"),
    ],
)
def test_command_line(program, arguments, words, tmp_path):
    refused(run_program(program, *arguments, cwd=tmp_path), USAGE, words)
    assert not contents(tmp_path)


# --- the manifest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, ["cannot be opened"]),
        (lambda path: path.write_text(path.read_text()[:-20]), ["line "]),
        (lambda path: path.write_text(""), []),
        (editing(lambda m: m.update(batch=3)), ['unknown key "batch"']),
        (editing(lambda m: m["artefact"].update(size=3)), ['artefact: unknown key "size"']),
        (editing(lambda m: m.pop("outputs")), ["outputs: is missing"]),
        (editing(lambda m: m.update(precision=32)), ["precision: expected string, got integer"]),
        (editing(lambda m: m["packing"].update(row_length="64")), ["packing.row_length: expected integer, got string"]),
        (editing(lambda m: m.update(manifest_version=2)), ["manifest_version is not 1"]),
        (editing(lambda m: m["inputs"][0].update(shape=[-1, LENGTH])), ["inputs[0].shape", "dynamic shapes"]),
        (
            editing(
                lambda m: [m.update(extra=1), m["artefact"].update(sha256="no"), m["outputs"][1].update(per="row")]
            ),
            ['unknown key "extra"', "artefact.sha256", "outputs[1].per"],
        ),
    ],
)
def test_manifest(program, broken, change, words):
    change(broken.model / "manifest.json")
    check_refusal(program, broken, MANIFEST, broken.model / "manifest.json", *words)


# --- the model -------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("change", "words"), [(Path.unlink, "No such file"), (flip_a_bit, "its SHA-256 differs")])
def test_model_file(program, broken, change, words):
    change(broken.model / "tiny.mindir")
    check_refusal(program, broken, MODEL, broken.model / "tiny.mindir", words)


def test_model_that_does_not_exist(program, broken):
    model = broken.model / "other.mindir"
    check_refusal(program, Deployed(model, broken.samples, broken.arrays), MODEL, model, "No such file")


def test_model_that_lite_cannot_read(program, broken):
    replace_model(broken, b"no protobuf at all")
    check_refusal(program, broken, MODEL, broken.model / "tiny.mindir", "cannot load it for CPU")


def test_model_of_a_version_that_lite_does_not_know(program, broken):
    model = ModelProto.FromString((broken.model / "tiny.mindir").read_bytes())
    model.mind_ir_version = 3
    replace_model(broken, model.SerializeToString())
    editing(lambda m: m["artefact"].update(ir_version=3))(broken.model / "manifest.json")
    check_refusal(program, broken, MODEL, "MindIR version 3", "mindir_lite")


def test_model_of_another_manifest(program, broken, padded):
    replace_model(broken, (padded.model / "tiny.mindir").read_bytes())
    check_refusal(program, broken, MODEL, broken.model / "tiny.mindir", "3 inputs, the manifest 4")


# --- the samples -----------------------------------------------------------------------------------------------------


def remove_all(samples: Path) -> None:
    shutil.rmtree(samples)


def as_npy(dtype: str, shape: tuple[int, ...] = (1, LENGTH)) -> Callable[[Path], None]:
    """All files as .npy of int32 but one, which is of `dtype` and `shape`."""

    def apply(samples: Path) -> None:
        for path in sorted(samples.glob("??_data/*.bin")):
            last = path.name == "span_bs1_3.bin" and path.parent.name == FOLDERS[2]
            values = np.zeros(shape, dtype) if last else np.fromfile(path, "<i4")
            np.save(path.with_suffix(".npy"), values)
            path.unlink()

    return apply


def put(name: str, position: int, value: int) -> Callable[[Path], None]:
    """One value of a .bin file replaced."""

    def apply(samples: Path) -> None:
        values = np.fromfile(samples / name, "<i4")
        values[position] = value
        values.tofile(samples / name)

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove_all, ["samples: the input folder does not exist"]),
        (lambda samples: shutil.rmtree(samples / "01_data"), ["01_data: the folder for attention_mask does not exist"]),
        (lambda samples: [path.unlink() for path in (samples / "00_data").iterdir()], ["00_data: holds no sample"]),
        (lambda samples: (samples / "00_data/span_bs1_4.bin").unlink(), ["00_data: span_bs1_4.bin is missing"]),
        (lambda samples: (samples / "02_data/span_bs1_14.bin").unlink(), ["02_data: 14 files"]),
        (lambda samples: (samples / "01_data/notes.txt").write_text(""), ["notes.txt is not of the form"]),
        (lambda samples: (samples / "00_data/span_bs1_2.bin").write_bytes(b"\0" * 255), ["span_bs1_2.bin: has 255"]),
        (lambda samples: (samples / "00_data/span_bs1_2.bin").write_bytes(b"\0" * 512), ["span_bs1_2.bin: has 512"]),
        (as_npy("<f4"), ["02_data/span_bs1_3.npy", "dtype '<f4'"]),
        (as_npy(">i4"), ["02_data/span_bs1_3.npy", "dtype '>i4'"]),
        (as_npy("<i4", (1, LENGTH - 1)), ["02_data/span_bs1_3.npy", "shape [1, 63], expected [1, 64]"]),
        (put("00_data/span_bs1_9.bin", 5, 30522), ["00_data/span_bs1_9.bin", "value 30522 at position 5"]),
        (put("02_data/span_bs1_9.bin", 63, -1), ["02_data/span_bs1_9.bin", "value -1", "allows 0 to 1"]),
        (put("01_data/span_bs1_14.bin", 2, 0), ["01_data/span_bs1_14.bin", "ones and then zeros"]),
        (put("01_data/span_bs1_0.bin", 0, 2), ["01_data/span_bs1_0.bin", "value 2 at position 0"]),
    ],
)
def test_samples(program, broken, change, words):
    change(broken.samples)
    check_refusal(program, broken, INPUT, *words)


# --- device, output folder, computation ------------------------------------------------------------------------------


def test_no_ascend_device_here(program, broken):
    flags = ("--device_type", "Ascend", "--device_id", "1")
    check_refusal(program, broken, DEVICE, "Ascend device 1", "cannot use it", flags=flags)


def test_output_folder_that_cannot_be_made(program, packed, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(infer(program, packed, tmp_path / "file" / "out"), OUTPUT, tmp_path / "file", "cannot be created")
    assert contents(tmp_path) == {"file": b"mine"}


def test_foreign_files_are_not_replaced(program, packed, tmp_path):
    (tmp_path / "result_Files").mkdir()
    (tmp_path / "result_Files" / "thesis.docx").write_text("mine")
    refused(infer(program, packed, tmp_path), OUTPUT, "thesis.docx", "is no result of this program")
    assert contents(tmp_path) == {"result_Files/thesis.docx": b"mine"}


def limit_files() -> None:
    """Writing more than 100 bytes into a file fails, as on a full disk, which even root cannot write on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_results_that_cannot_be_written(program, broken):
    words = ("span_bs1_", "cannot be written")
    check_refusal(program, broken, OUTPUT, *words, preexec_fn=limit_files, restore_signals=False)


def test_results_that_are_no_numbers(program, broken):
    model = ModelProto.FromString((broken.model / "tiny.mindir").read_bytes())
    for tensor in model.graph.parameter:
        if tensor.name.endswith("bias"):
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, "<f4").tobytes()
    replace_model(broken, model.SerializeToString())
    check_refusal(program, broken, PREDICT, "start_logits of span_bs1_", "is not a finite number")
