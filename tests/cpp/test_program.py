"""The C++ program's results are MindSpore's, sample for sample, whatever the layout, the files and the flags."""

import json
import re

import numpy as np
import pytest

from tests.cpp.deployment import FOLDERS, LENGTH, PADDED_ROWS, ROWS, Deployed, infer, read_bins
from tests.tolerances import TOLERANCES

RTOL, ATOL, _ = TOLERANCES["lite logits"]


@pytest.fixture(params=["packed", "padded"])
def layout(request) -> Deployed:
    return request.getfixturevalue(request.param)


def subset(deployed: Deployed, folder, count: int, dtype: str | None = None, batch: int = 1) -> Deployed:
    """The first `count` samples, written anew: as .bin, or as .npy of `dtype`, `batch` samples a file."""
    arrays = {name: array[:count] for name, array in deployed.arrays.items()}
    for name, array in arrays.items():
        (folder / name).mkdir(parents=True)
        for index, rows in enumerate(array.reshape(-1, batch, LENGTH)):
            stem = folder / name / f"span_bs{batch}_{index}"
            if dtype is None:
                stem.with_suffix(".bin").write_bytes(rows.tobytes())
            else:
                np.save(stem.with_suffix(".npy"), rows.astype(dtype))
    return Deployed(deployed.model, folder, arrays)


def check_results(deployed: Deployed, output, logits, batch: int = 1) -> None:
    """Every file has its name and every real token its value; behind the real tokens are zeros."""
    lengths = deployed.arrays["01_data"].sum(axis=1)
    files = deployed.count // batch
    names = {path.name for path in (output / "result_Files").iterdir()}
    assert names == {f"span_bs{batch}_{index}_{k}.bin" for index in range(files) for k in (0, 1)}
    for k, expected in enumerate(logits):
        found = np.concatenate(
            [np.fromfile(output / "result_Files" / f"span_bs{batch}_{index}_{k}.bin", "<f4") for index in range(files)]
        ).reshape(deployed.count, LENGTH)
        for row, wanted, length in zip(found, expected, lengths, strict=False):
            np.testing.assert_allclose(row[:length], wanted[:length], RTOL, ATOL)
            assert not row[length:].any()


def test_preprocess_wrote_what_the_tests_need(packed, padded, logits):
    lengths = packed.arrays["01_data"].sum(axis=1)
    assert packed.count == padded.count >= 12
    assert lengths.min() < LENGTH // 3 and lengths.max() > 3 * LENGTH // 4
    # A comparison says nothing when all samples give the same: they differ by much more than the tolerance.
    assert np.stack(logits)[:, :, : lengths.min()].std(axis=1).min() > 100 * ATOL


@pytest.mark.parametrize("count", [1, 5, None])
def test_results_equal_mindspore(program, layout, logits, tmp_path, count):
    some = subset(layout, tmp_path / "in", count or layout.count)
    assert some.count % ROWS or some.count % PADDED_ROWS, "the last batch should be a partial one"
    done = infer(program, some, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    check_results(some, tmp_path / "out", logits)


@pytest.mark.parametrize(("dtype", "batch"), [("<i4", 1), ("<i8", 1), ("<i4", 3), (None, 3)])
def test_every_kind_of_input_file(program, packed, logits, tmp_path, dtype, batch):
    some = subset(packed, tmp_path / "in", 6, dtype, batch)
    done = infer(program, some, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    check_results(some, tmp_path / "out", logits, batch)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_warm_up_change_no_result(program, layout, logits, tmp_path, threads):
    done = infer(program, layout, tmp_path / "out", f"--threads={threads}", "--warmup", threads - 1)
    assert (done.returncode, done.stderr) == (0, "")
    check_results(layout, tmp_path / "out", logits)
    timing = json.loads((tmp_path / "out/time_Result/timing.json").read_text())
    assert (timing["threads"], timing["warmup_batches"]) == (threads, threads - 1)


def test_graph_inputs_are_bound_by_name(program, packed, logits, tmp_path):
    values = json.loads((packed.model / "manifest.json").read_text())
    artefact = packed.model / values["artefact"]["file"]
    values["inputs"].reverse()
    values["sample_inputs"].reverse()
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    done = infer(program, Deployed(artefact, packed.samples, packed.arrays), tmp_path, "--manifest", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_results(packed, tmp_path, logits)


def test_timing_files(program, layout, tmp_path):
    done = infer(program, layout, tmp_path)
    assert done.returncode == 0
    timing = json.loads((tmp_path / "time_Result/timing.json").read_text())
    manifest = json.loads((layout.model / "manifest.json").read_text())
    batch, tokens = timing["batch_ms"], int(layout.arrays["01_data"].sum())
    assert (timing["model"], timing["device"], timing["samples"], timing["tokens"]) == (
        "bert/span", "CPU", layout.count, tokens,
    )  # fmt: skip
    if manifest["packing"] is None:
        assert timing["batches"] == -(-layout.count // PADDED_ROWS)
    else:
        assert -(-tokens // (ROWS * LENGTH)) <= timing["batches"] < -(-layout.count // ROWS)
    rows = manifest["inputs"][0]["shape"][0]
    assert timing["fill_rate"] == pytest.approx(tokens / (timing["batches"] * rows * LENGTH))
    assert 0 < batch["min"] <= batch["p50"] <= batch["p90"] <= batch["p99"] <= batch["max"]
    assert batch["min"] <= batch["mean"] <= batch["max"]
    assert timing["predict_seconds"] == pytest.approx(batch["mean"] * timing["batches"] / 1000)
    assert timing["predict_seconds"] <= timing["total_seconds"]
    assert timing["predict_samples_per_second"] == pytest.approx(layout.count / timing["predict_seconds"])
    assert timing["samples_per_second"] == pytest.approx(layout.count / timing["total_seconds"])
    assert timing["tokens_per_second"] == pytest.approx(tokens / timing["total_seconds"])
    line = (tmp_path / "time_Result/test_perform_static.txt").read_text()
    found = re.fullmatch(r"NN inference cost average time: (\S+) ms of infer_count (\d+)\n", line)
    assert float(found[1]) == pytest.approx(batch["mean"], rel=1e-4) and int(found[2]) == timing["batches"]
    assert done.stdout.startswith(line)


def test_preprocess_matches_the_manifest(packed):
    ranges = {
        item["folder"]: item["range"]
        for item in json.loads((packed.model / "manifest.json").read_text())["sample_inputs"]
    }
    assert tuple(ranges) == FOLDERS
    for name, (low, high) in ranges.items():
        array = read_bins(packed.samples / name, "span_bs1")
        assert array.shape == (packed.count, LENGTH) and low <= array.min() <= array.max() <= high
