"""Python and C++ read the same manifest.json: what Python refuses, C++ refuses too, and some things more.

The program only has to run what it can: it refuses another dtype than int32, samples of differing lengths and the
like, which Python leaves to the runtime.
"""

import json

import pytest

from models.common.errors import UserError
from models.common.export.manifest import parse_manifest
from tests.cpp.deployment import LENGTH, ROWS, editing, run_program
from tests.cpp.test_failures import INPUT, MANIFEST


def accepted_by_cpp(program, path) -> bool:
    """Whether the program gets beyond the manifest: to the input folder, which does not exist."""
    done = run_program(program, "--manifest", path, "--input_dir", path.parent / "nothing")
    assert done.returncode in (MANIFEST, INPUT), done.stderr
    return done.returncode == INPUT


def accepted_by_python(path) -> bool:
    try:
        parse_manifest(json.loads(path.read_text()), str(path))
    except UserError:
        return False
    return True


@pytest.fixture
def manifest(packed, tmp_path):
    """A copy of the real manifest, with the model beside it."""
    for file in packed.model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / "manifest.json"


def test_both_accept_what_an_export_writes(program, packed, padded):
    for deployed in (packed, padded):
        path = deployed.model / "manifest.json"
        assert accepted_by_python(path) and accepted_by_cpp(program, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(labels=["no", "yes"], parity=None),
        lambda m: m.update(tokenizer=None),
        lambda m: m["task"].update(note="café \U0001f600"),
        lambda m: m["sample_inputs"][0].update(range=None),
        lambda m: m["parity"].update(tolerance=1),
        lambda m: m["inputs"].reverse(),
        lambda m: m.update(packing=None),  # a row is then one sample
    ],
)
def test_both_accept(program, manifest, change):
    editing(change)(manifest)
    assert accepted_by_python(manifest) and accepted_by_cpp(program, manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("parity"),
        lambda m: m.pop("quantization"),
        lambda m: m.update(quantization={}),
        lambda m: m.pop("manifest_version"),
        lambda m: m.update(manifest_version="1"),
        lambda m: m.update(manifest_version=True),
        lambda m: m.update(manifest_version=1.0),
        lambda m: m.update(remark=""),
        lambda m: m.update(model="bert"),
        lambda m: m["model"].pop("config"),
        lambda m: m["task"].pop("name"),
        lambda m: m["task"].update(max_seq_length=0),
        lambda m: m["task"].update(max_seq_length=True),
        lambda m: m["task"].update(labels=[]),
        lambda m: m["artefact"].update(file="../tiny.mindir"),
        lambda m: m["artefact"].update(format="pickle"),
        lambda m: m["artefact"].update(ir_version=0),
        lambda m: m["artefact"].update(sha256=m["artefact"]["sha256"].upper()),
        lambda m: m["source_weights"].update(sha256=""),
        lambda m: m["tokenizer"].update(lower_case=1),
        lambda m: m.update(labels=[1]),
        lambda m: m.update(sample_inputs=[]),
        lambda m: m.update(outputs={}),
        lambda m: m["packing"].update(row_length=LENGTH + 1),
        lambda m: m["packing"].update(max_samples_per_row=0),
        lambda m: m["sample_inputs"][0].update(folder="../00_data"),
        lambda m: m["sample_inputs"][0].update(folder="01_data"),
        lambda m: m["sample_inputs"][0].update(name="token_type_ids"),
        lambda m: m["sample_inputs"][0].update(shape=[LENGTH + 1]),
        lambda m: m["sample_inputs"][0].update(shape=[]),
        lambda m: m["sample_inputs"][0].update(range=[5, 4]),
        lambda m: m["sample_inputs"][0].update(range=[0]),
        lambda m: m["sample_inputs"][1].update(name="mask"),
        lambda m: m["inputs"][0].update(dtype="int31"),
        lambda m: m["inputs"][0].update(shape=[ROWS, LENGTH, 2]),
        lambda m: m["inputs"][0].update(shape=[ROWS]),
        lambda m: m["inputs"][1].update(shape=[ROWS + 1, LENGTH]),
        lambda m: m["inputs"][0].update(source="labels"),
        lambda m: m["inputs"][1].update(source="position_ids"),
        lambda m: m["inputs"][1].update(name="input_ids"),
        lambda m: m["outputs"][0].update(shape=[ROWS, LENGTH - 1]),
        lambda m: m["outputs"][0].update(shape=[LENGTH, ROWS]),
        lambda m: m["outputs"][0].update(per="row"),
        lambda m: m["outputs"][0].update(name="end_logits"),
        lambda m: m["parity"]["max_abs_difference"].update(start_logits=1.0),
        lambda m: m["parity"]["max_abs_difference"].pop("start_logits"),
        lambda m: m["parity"]["max_abs_difference"].update(more=0.0),
        lambda m: m["parity"].update(batches=[1]),
    ],
)
def test_both_refuse(program, manifest, change):
    editing(change)(manifest)
    assert (accepted_by_python(manifest), accepted_by_cpp(program, manifest)) == (False, False)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["artefact"].update(file=""),
        lambda m: m["artefact"].update(file=".."),
        lambda m: m["artefact"].update(format="onnx"),
        lambda m: m["sample_inputs"][0].update(shape=[LENGTH // 2]),
        lambda m: m["sample_inputs"][0].update(range=[0, 2**31]),
        lambda m: m["inputs"][0].update(dtype="int64"),
        lambda m: m["outputs"][0].update(dtype="float16"),
        lambda m: m["outputs"][0].update(per="sample"),  # [R, T] where packed samples need [R, S]
    ],
)
def test_cpp_refuses(program, manifest, change):
    editing(change)(manifest)
    assert not accepted_by_cpp(program, manifest)
