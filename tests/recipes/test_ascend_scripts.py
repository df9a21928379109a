"""run_atc.sh and run_ais_bench.sh: the original README's command lines, and what happens around them.

Ascend's tools cannot run here: stand-ins of their names write down what they are called with.
"""

import dataclasses
import importlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path
from string import Template

import onnx
import pytest

from models.common.export.manifest import read_manifest
from models.common.files import read_json
from models.common.finetune import evaluate_cell
from tests.tiny import TINY, write_squad, write_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"
SIZES, STATIC_SEQS, STATIC_BATCHES = ("base", "large"), (64, 128, 256, 320, 384, 512), (1, 4, 8, 16, 32, 64)
UNPAD_SEQS, UNPAD_BATCHES = (384, 512), (4, 8, 16, 32, 64)
SYSTEM = {"os": "linux", "arch": platform.machine()}

ATC = """--framework 5 --log=error --soc_version Ascend${chip_name} --optypelist_for_implmode="Gelu" \
--op_select_implmode=high_performance"""
INPUT = "--input ${prep_data}/input_ids,${prep_data}/attention_mask,${prep_data}/token_type_ids"
# The README's lines, with its variables.
LINES = {
    "atc": "atc --model onnx/bert_${model_size}_seq${seq}_bs${bs}_fix.onnx "
    f"--output om/bert_${{model_size}}_seq${{seq}}_bs${{bs}} {ATC}",
    "atc unpad": f"atc --model onnx/bert_${{model_size}}_unpad.onnx --output om/bert_${{model_size}}_unpad {ATC} "
    '--input_shape="input_ids:-1,384;attention_mask:-1,384;token_type_ids:-1,384"',
    "bench": "python3 -m ais_bench --model=om/bert_${model_size}_seq${seq}_bs${bs}.om --batchsize=${bs} "
    f"{INPUT} --output result --output_dirname result_bs${{bs}} --outfmt NPY",
    "bench unpad": "python3 -m ais_bench --model=om/bert_${model_size}_unpad_${os}_${arch}.om "
    f"{INPUT} --output result_unpad --output_dirname result_bs${{bs}} --outfmt NPY "
    '--dymShape "input_ids:32,384;attention_mask:32,384;token_type_ids:32,384" --outputSize 1000000,1000000',
    "speed": "python3 -m ais_bench --model=om/bert_${model_size}_seq${seq}_bs${bs}.om --loop=50 --batchsize=${bs}",
}
RUNS = {
    "atc": ("run_atc", "--chip", "310P3"), "atc unpad": ("run_atc", "--unpad", "--chip", "310P3"),
    "bench": ("run_ais_bench",), "bench unpad": ("run_ais_bench", "--unpad"), "speed": ("run_ais_bench", "--speed"),
}  # fmt: skip


def wanted(kind: str) -> list[list[str]]:
    """The words of the README's line for every model of its tables, with what is mended: the dynamic models are of the
    table's lengths and batches, and results of one length or size do not overwrite those of another."""
    line = LINES[kind]
    line = re.sub(r"--output (result\w*)", r"--output \1/bert_${model_size}_seq${seq}", line)
    seqs, batches = (UNPAD_SEQS, UNPAD_BATCHES) if "unpad" in kind else (STATIC_SEQS, STATIC_BATCHES)
    found = []
    for size, seq, batch in product(SIZES, seqs, batches if kind != "atc unpad" else (-1,)):
        own = line.replace("32,384", f"{batch},{seq}").replace("-1,384", f"-1,{seq}")
        if seq != 384:
            own = re.sub(r"(om/bert_\S+_unpad)", rf"\1_seq{seq}", own)
        names = {"model_size": size, "seq": seq, "bs": batch, "chip_name": "310P3", **SYSTEM}
        names["prep_data"] = f"prep_data/bert_{size}_seq{seq}"
        found.append(shlex.split(Template(own).substitute(names)))
    return found


def script(name: str, *flags: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / f"{name}.sh"), *flags]
    environment = {**os.environ, "PATH": PLAIN_PATH, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)


@pytest.fixture
def tools(tmp_path) -> dict[str, str]:
    """Stand-ins: `atc` and `python3 -m ais_bench` append their arguments to calls.jsonl, the first copies the graph as
    its OM; `npu-smi` prints the README's table. A call whose arguments hold $FAIL ends with exit code 7."""
    folder, calls = tmp_path / "tools", tmp_path / "calls.jsonl"
    folder.mkdir()
    source = f"""
import json, os, shutil, sys
words = ["atc", *sys.argv[1:]] if "atc" in sys.argv[0] else ["python3", "-m", "ais_bench", *sys.argv[1:]]
open({str(calls)!r}, "a").write(json.dumps(words) + "\\n")
if words[0] == "atc":
    name = words[words.index("--output") + 1] + ("_linux_{platform.machine()}" if "unpad" in words[4] else "") + ".om"
    shutil.copyfile(words[2], name)
if os.environ.get("FAIL") and os.environ["FAIL"] in " ".join(words):
    sys.exit(7)
"""
    (folder / "ais_bench.py").write_text(source)
    (folder / "atc").write_text(f"#!/usr/bin/env python3\n{source}")
    table = "echo '| NPU     Name      | Health   |\n| Chip    Device    | Bus-Id   |\n+===========+==========+\n"
    table += "| 0       310P3     | OK       |\n| 0       0         | 0000:82:00.0 |\n+===========+==========+\n"
    (folder / "npu-smi").write_text(f"#!/bin/bash\n{table}| 1       910B     | OK |'\n")
    for name in ("atc", "npu-smi"):
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{PLAIN_PATH}", "PYTHONPATH": str(folder)}


def calls(folder: Path) -> list[list[str]]:
    path = folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def put_data(folder: Path, *names: str) -> None:
    put(folder, *(f"prep_data/{name}/{kind}/0.npy" for name, kind in product(
        names, ("input_ids", "attention_mask", "token_type_ids"))))  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_every_line_of_the_tables_is_printed(kind, tmp_path):
    done = script(*RUNS[kind], "--print", folder=tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert [shlex.split(line) for line in done.stdout.splitlines()] == wanted(kind)
    assert list(tmp_path.iterdir()) == []


def test_the_lines_are_those_of_the_original(shared_data):
    original = shared_data.parent / "originals/bert_hf_onnx_ascend_README_CN.md"
    text = original.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [line.strip() for line in text.splitlines() if re.match(r"\s*(atc|python3 -m ais_bench) ", line)]
    assert [shlex.split(line) for line in found] == [shlex.split(line) for line in LINES.values()]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    for kind, seqs in (("静态", STATIC_SEQS), ("动态", UNPAD_SEQS)):
        assert {int(row[2]) for row in rows if row[0] == kind} == set(seqs)
    # Of dynamic models the data set is named, too.
    for columns, batches in ((4, STATIC_BATCHES), (5, UNPAD_BATCHES)):
        assert {int(row[-2]) for row in rows if len(row) == columns and row[-2].isdigit()} == set(batches)


def test_a_name_that_is_not_known_yet_stays_a_variable(tmp_path):
    done = script("run_atc", "--print", "--model_size", "base", "--seq", "384", "--batch_size", "8", folder=tmp_path)
    assert "--soc_version Ascend${chip_name} " in done.stdout


def test_models_are_compiled_once(tmp_path, tools):
    put(tmp_path, "onnx/bert_base_seq64_bs1_fix.onnx", "onnx/bert_base_seq64_bs4_fix.onnx")
    flags = ("run_atc", "--model_size", "base", "--seq", "64", "--batch_size", "1,4")
    done = script(*flags, folder=tmp_path, **tools)
    assert done.returncode == 0, done.stderr
    expected = wanted("atc")[:2]
    assert calls(tmp_path) == expected == [shlex.split(line) for line in done.stdout.splitlines()]
    again = script(*flags, folder=tmp_path, **tools)
    assert again.returncode == 0 and calls(tmp_path) == expected
    assert "om/bert_base_seq64_bs4.om: there already; --rebuild" in again.stdout
    done = script(*flags, "--rebuild", "--chip", "Ascend910B", folder=tmp_path, **tools)
    assert [line[9] for line in calls(tmp_path)[2:]] == ["Ascend910B"] * 2 and done.returncode == 0


def test_dynamic_models_have_a_file_for_each_length(tmp_path, tools):
    put(tmp_path, "onnx/bert_large_unpad.onnx")
    done = script("run_atc", "--model_size", "large", "--unpad", folder=tmp_path, **tools)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path) == wanted("atc unpad")[2:]
    put_data(tmp_path, "bert_large_seq384", "bert_large_seq512")
    done = script("run_ais_bench", "--model_size", "large", "--unpad", folder=tmp_path, **tools)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path)[2:] == wanted("bench unpad")[10:]


def test_data_and_speed_are_measured(tmp_path, tools):
    put(tmp_path, "om/bert_base_seq64_bs1.om", "om/bert_base_seq128_bs1.om")
    flags = ("run_ais_bench", "--model_size", "base", "--seq", "64,128", "--batch_size", "1")
    assert script(*flags, "--speed", folder=tmp_path, **tools).returncode == 0
    put_data(tmp_path, "bert_base_seq64", "bert_base_seq128")
    assert script(*flags, folder=tmp_path, **tools).returncode == 0
    assert calls(tmp_path) == [wanted(kind)[at] for kind in ("speed", "bench") for at in (0, 6)]
    put(tmp_path, "result/bert_base_seq128/result_bs1/0_0.npy")
    done = script(*flags, folder=tmp_path, **tools)
    assert done.returncode == 2 and "result/bert_base_seq128/result_bs1: holds results of a former run" in done.stderr
    assert len(calls(tmp_path)) == 4


def test_a_tool_that_fails_ends_the_script_with_its_exit_code(tmp_path, tools):
    put(tmp_path, *(f"onnx/bert_base_seq64_bs{batch}_fix.onnx" for batch in STATIC_BATCHES))
    flags = ("--model_size", "base", "--seq", "64")
    done = script("run_atc", *flags, folder=tmp_path, **tools, FAIL="bs4_fix")
    assert done.returncode == 7 and "error: atc failed with exit code 7" in done.stderr
    # What it left behind is no model.
    assert [path.name for path in (tmp_path / "om").iterdir()] == ["bert_base_seq64_bs1.om"]
    done = script("run_ais_bench", *flags, "--batch_size", "1", "--speed", folder=tmp_path, **tools, FAIL="loop")
    assert done.returncode == 7 and "error: python3 failed with exit code 7" in done.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["run_atc"], "atc is not on the PATH; source /usr/local/Ascend/ascend-toolkit/set_env.sh"),
        (["run_ais_bench"], "python3 has no ais_bench; install it"),
    ],
)
def test_missing_tools_are_named(tmp_path, command, says):
    done = script(*command, folder=tmp_path)
    assert done.returncode == 2 and says in done.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["run_atc", "--seq", "64,100"], "--seq 100: the tables have 64, 128, 256, 320, 384, 512"),
        (["run_atc", "--unpad", "--seq", "64"], "--seq 64: the tables have 384, 512"),
        (["run_ais_bench", "--unpad", "--batch_size", "1"], "--batch_size 1: the tables have 4, 8, 16, 32, 64"),
        (["run_ais_bench", "--model_size", "tiny"], "--model_size tiny: the tables have base, large"),
        (["run_atc", "--unpad", "--batch_size", "8"], "a dynamic model takes any batch"),
        (["run_ais_bench", "--unpad", "--speed"], "--speed is for static models"),
        (["run_atc", "--chip"], "--chip needs a value"),
        (["run_ais_bench", "--chip", "310P3"], "unknown argument --chip"),
    ],
)
def test_what_the_tables_do_not_have_is_refused(tmp_path, tools, command, says):
    done = script(*command, folder=tmp_path, **tools)
    assert done.returncode == 2 and says in done.stderr and calls(tmp_path) == []


def test_a_device_that_nothing_names_is_asked_for(tmp_path, tools):
    (tmp_path / "tools/npu-smi").unlink()
    done = script("run_atc", folder=tmp_path, **tools)
    assert done.returncode == 2 and "--chip is not given: the name in `npu-smi info`" in done.stderr


def test_what_is_missing_comes_with_the_commands_that_make_it(tmp_path, tools, minilm_dir, monkeypatch):
    """And they do: with the weights of a tiny model, of another size and 64 positions; its head has the size of BERT's,
    for the operators of Ascend know no other."""
    config = dataclasses.replace(TINY, hidden_size=64, num_attention_heads=1)
    write_weights(tmp_path / "bert_base", minilm_dir / "vocab.txt", config, groups=("heads.span",))
    monkeypatch.chdir(tmp_path)
    graphs = [f"onnx/bert_base_seq64_bs{batch}_fix.onnx" for batch in (1, 4)]
    lines = refused(tmp_path, tools, graphs, "run_atc", "--seq", "64", "--batch_size", "1,4")
    assert len(lines) == 3
    follow(lines)
    assert read_manifest(Path("exports/bert_base_seq64")).task["doc_stride"] == 16
    for path, batch in zip(graphs, (1, 4), strict=True):
        shapes = [value.type.tensor_type.shape.dim for value in onnx.load(path).graph.input]
        assert [[size.dim_value for size in shape] for shape in shapes] == [[batch, 64]] * 3
    lines = refused(tmp_path, tools, ["onnx/bert_base_unpad.onnx"], "run_atc", "--unpad")
    assert len(lines) == 2
    follow([line.replace("384", "64") for line in lines[1:]])
    assert Path("onnx/bert_base_unpad.onnx").is_file()
    absent = ["om/bert_base_seq64_bs1.om", "prep_data/bert_base_seq64"]
    assert refused(tmp_path, tools, absent, "run_ais_bench", "--seq", "64", "--batch_size", "1") == [
        "  bash scripts/run_atc.sh --model_size base --seq 64 --batch_size 1",
        "  python -m models.bert.bert_process --model_path exports/bert_base_seq64 --process_mode preprocess "
        "--eval_json_path dev-v1.1.json --save_dir prep_data/bert_base_seq64 --pad_to_max_length",
    ]


def test_from_a_checkpoint_to_its_score(tmp_path, tools, minilm_dir, monkeypatch):
    """The whole flow, with ONNX Runtime where the device would be, gives the answers of every other way."""
    write_weights(tmp_path / "bert_base", minilm_dir / "vocab.txt", groups=("heads.span",))
    data = write_squad(tmp_path / "dev-v1.1.json")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools/ais_bench.py").write_text(f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPTS.parent)!r})
from tests.ais_bench import run_ais_bench
given = dict(zip(sys.argv[3:9:2], sys.argv[4:9:2]))
run_ais_bench(Path(sys.argv[1].removeprefix("--model=")), [Path(folder) for folder in given["--input"].split(",")],
              Path(given["--output"]) / given["--output_dirname"])
""")
    tools["PATH"] = f"{Path(sys.executable).parent}:{tools['PATH']}"
    which = ("--seq", "64", "--batch_size", "4")
    follow(refused(tmp_path, tools, ["onnx/bert_base_seq64_bs4_fix.onnx"], "run_atc", *which))
    assert script("run_atc", "--model_size", "base", *which, folder=tmp_path, **tools).returncode == 0
    follow(refused(tmp_path, tools, ["prep_data/bert_base_seq64"], "run_ais_bench", *which))
    done = script("run_ais_bench", "--model_size", "base", *which, folder=tmp_path, **tools)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "result/bert_base_seq64/result_bs4"
    follow([f"python -m models.bert.bert_process --model_path exports/bert_base_seq64 --process_mode postprocess "
            f"--eval_json_path {data} --save_dir prep_data/bert_base_seq64 --result_dir {results}"])  # fmt: skip
    evaluate_cell.main(["exports/bert_base_seq64", "--eval_json_path", str(data), "--output_dir", "wanted"])
    assert read_json(results / "predictions.json") == read_json(Path("wanted/predictions.json"))


def refused(folder: Path, tools: dict[str, str], absent: list[str], *command: str) -> list[str]:
    """The commands that a script names instead of running its own, since files are absent."""
    before = calls(folder)
    done = script(*command, "--model_size", "base", folder=folder, **tools)
    first, *lines = done.stderr.splitlines()
    assert done.returncode == 2 and first == f"error: no {', '.join(absent)}; make what is missing with"
    assert calls(folder) == before
    return lines


def follow(lines: list[str]) -> None:
    """Run these commands."""
    for line in lines:
        python, m, module, *words = shlex.split(line.replace(" --model_size base", ""))
        assert (python, m) == ("python", "-m")
        importlib.import_module(module).main(words)
