"""Every benchmark to its end on a tiny model: what its JSON says, that it adds up, and what mistakes it refuses."""

import importlib
import json
import re
import shlex
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from benchmarks import deployment_speed, epochs, latency_grid, samples, sidebyside, table
from data_tools.feature_store import FeatureSet
from models.common.cli import run_main
from models.common.errors import UserError
from tests.pretraining import write_short_documents
from tests.tiny import TINY, write_squad

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MACHINE = {"date", "command", "commit", "cpu", "cores", "threads", "load_average", "niceness", "platform", "python",
           "versions"}  # fmt: skip
# Module -> flags; names in braces are filled in. Half of them generate their data, half are given a file.
RACES = {
    "training_speed": "--weights {weights} --data_file {data} --batch_size 3",
    "evaluation_speed": "--weights {weights} --rows 2 --batch_size 3",
    "cpp_vs_onnxruntime": "--weights {weights} --data_file {data} --rows 2 --cases packed padded",
    "conversion": "--formats numpy mindrecord",
    "ernie_conversion": "--task dbqa --formats numpy tfrecord",
    "deployment_speed": "--weights {weights} --data_file {data} --cases 384 --max_drop 100",
    "latency_grid": "--weights {weights} --data_file {data} --max_drop 100",
    "paddle_reading": "",
    "pretrain_data": "--formats numpy",
    "pretrain_speed": "--network {network} --data_file {corpus} --batch_size 3",
    "pretrain_scaling": "--network {network} --batch_size 4",
}
# Module -> case -> who is ours, and how many peers there are.
CASES = {
    "training_speed": {"training": (["ours"], 3)},
    "evaluation_speed": {"evaluation": (["ours"], 2)},
    "cpp_vs_onnxruntime": dict.fromkeys(("packed", "padded"), (["C++, MindSpore Lite"], 1)),
    "conversion": dict.fromkeys(("numpy", "mindrecord"), (["ours"], 1)),
    "ernie_conversion": dict.fromkeys(("numpy", "tfrecord"), (["ours"], 1)),
    "deployment_speed": {"384": ([*deployment_speed.OURS], 2)},
    "latency_grid": {"grid": ([*latency_grid.OURS], 2)},
    "paddle_reading": {"fluid": (["ours"], 2)},
    "pretrain_data": {"numpy": (["ours"], 1)},
    "pretrain_speed": {"packed": (["ours"], 5), "equal shapes": (["ours, padded"], 2)},
    "pretrain_scaling": {"scaling": (["2 workers"], 2)},
}
LENGTH = TINY.max_position_embeddings
SEED = 5


def random_model(folder: Path, minilm_dir: Path) -> dict[str, Path]:
    """A SQuAD file and a random Hugging Face model without dropout, so that losses can be compared."""
    torch.manual_seed(SEED)
    settings = {**TINY.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForQuestionAnswering(BertConfig(**settings))
    samples.save_model(model, folder / "weights", minilm_dir / "vocab.txt")
    network = folder / "weights" / "config.json"
    return {"weights": network.parent, "network": network, "data": write_squad(folder / "tiny.json"), "folder": folder}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("benchmarks")
    return random_model(folder, minilm_dir) | {"corpus": write_short_documents(folder / "corpus.txt")}


@pytest.fixture(scope="module", params=sorted(RACES))
def race(request, inputs) -> tuple[str, dict]:
    """A race run to its end, and its JSON."""
    name, output = request.param, inputs["folder"] / f"{request.param}.json"
    flags = RACES[name].format(**inputs).split()
    importlib.import_module(f"benchmarks.{name}").main([*flags, "--quick", "--output", str(output)])
    return name, json.loads(output.read_text())


def test_a_race_says_how_it_was_measured(race, inputs):
    name, result = race
    assert list(result) == ["benchmark", "settings", "environment", "results"]
    assert result["benchmark"] == f"benchmarks.{name}"
    assert MACHINE | {"contenders_environment"} == set(result["environment"])
    assert result["settings"]["quick"] is True and "worker" not in result["settings"]
    command = shlex.split(result["environment"]["command"])
    assert command[:3] == ["python", "-m", f"benchmarks.{name}"] and "--quick" in command
    assert result["environment"]["threads"] == result["settings"]["threads"]
    named = re.findall(r"--data_file {(\w+)}", RACES[name])
    assert result["settings"]["data_file"] == (str(inputs[named[0]]) if named else None)


def test_the_figures_of_a_race_add_up(race):
    name, result = race
    assert list(result["results"]) == list(CASES[name])
    for case, summary in result["results"].items():
        contenders, work = summary["contenders"], summary["work_per_repetition"]
        ours, count = CASES[name][case]
        peers = [who for who in contenders if who not in ours]
        assert list(contenders) == [*ours, *peers] and len(peers) == count
        assert set(summary["ratios"]) == {f"{own} / {peer}" for own in ours for peer in peers}
        for who, made in contenders.items():
            seconds = [run["seconds"] for run in made["repetitions"]]
            assert len(seconds) == 1 and made["median_seconds"] == median(seconds)
            assert made["peak_memory_mib"] == max(run["peak_memory_mib"] for run in made["repetitions"]) > 10
            assert all(run["waiting_cpu_seconds"] < 0.2 for run in made["repetitions"]), who
            for unit, amount in work.items():
                assert made[f"{unit}_per_second"] == pytest.approx(amount / made["median_seconds"])
            for own in ours if who in peers else ():
                ratio = summary["ratios"][f"{own} / {who}"]
                quotient = made["median_seconds"] / contenders[own]["median_seconds"]
                assert ratio["ratio"] == ratio["lowest"] == ratio["highest"] == pytest.approx(quotient)


def test_all_contenders_of_a_race_did_the_same_work(race):
    name, result = race
    for summary in result["results"].values():
        runs = [run for made in summary["contenders"].values() for run in made["repetitions"]]
        if name == "conversion":
            assert {run["features"] for run in runs} == {summary["work_per_repetition"]["features"]}
            assert summary["work_per_repetition"]["features"] >= 200
            assert 0.99 <= summary["equal_labels"] <= 1 and len(summary["tokens_sha256"]) == 64
            continue
        if name in CHECKS:
            CHECKS[name](summary)
            continue
        drawn = summary["samples"]
        assert drawn["windows"] == 6 and drawn["row_length"] == LENGTH
        assert drawn["real_tokens"] == drawn["mean_length"] * 6 <= 6 * LENGTH
        assert {run["real_tokens"] for run in runs} == {drawn["real_tokens"]}
        assert {run.get("windows", run.get("examples")) for run in runs} == {6}
        check_logits(summary)


def check_logits(summary: dict) -> None:
    """Of every contender but the first."""
    logits = summary["logits"]
    assert logits["largest_logit"] > 0
    assert list(logits["largest_difference"]) == list(summary["contenders"])[1:]
    for difference in logits["largest_difference"].values():
        assert difference <= samples.LOGITS_TOLERANCE * logits["largest_logit"]


def check_answers(summary: dict) -> None:
    """The same questions with the same answers in float32, however they are batched."""
    assert summary["work_per_repetition"] == {"questions": 6}
    runs = {name: made["repetitions"][0] for name, made in summary["contenders"].items()}
    assert len({run["windows"] for run in runs.values()}) == 1
    for name, share in summary["answers_in_common"].items():
        if name.startswith("float32"):
            assert share == 1.0 and runs[name]["f1"] == runs[deployment_speed.PADDED]["f1"]
    assert summary["quantization"]["method"] == "static"
    sizes = {name: made["description"]["bytes"] for name, made in summary["contenders"].items()}
    assert sizes["int8, sorted"] < sizes["float32, sorted"]


def test_float32_with_other_answers_is_an_error():
    deployment_speed.check_answers({"float32, sorted": 1.0, "int8, sorted": 0.5})
    with pytest.raises(UserError, match="not the same models"):
        deployment_speed.check_answers({"float32, sorted": 0.99, "int8, sorted": 1.0})


def check_cells(summary: dict) -> None:
    """Every cell of every contender, and a plot."""
    assert summary["work_per_repetition"] == {"windows": 3}
    assert set(summary["cells"]) == set(summary["contenders"])
    for name, cells in summary["cells"].items():
        times = summary["contenders"][name]["repetitions"][0]["cells"]
        assert set(cells) == set(times) == {f"{LENGTH}x1", f"{LENGTH}x2"}
        for cell, seconds in times.items():
            assert cells[cell]["batch_ms"] == pytest.approx(1e3 * seconds)
            assert cells[cell]["windows_per_second"] == pytest.approx(int(cell[-1]) / seconds)


def check_figures(summary: dict) -> None:
    """As many instances, nearly, of the same kind."""
    ours, theirs = summary["figures"].values()
    assert summary["work_per_repetition"] == {"instances": ours["instances"]}
    made = [contender["repetitions"][0]["instances"] for contender in summary["contenders"].values()]
    assert made == [ours["instances"], theirs["instances"]] and min(made) > 500
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=0.1)
    assert 0.14 < ours["targets_per_token"] < 0.16 and 0.5 < ours["random_next"] < 0.9


def check_pretraining(summary: dict) -> None:
    """The same samples and tokens, losses alike."""
    runs = {name: made["repetitions"][0] for name, made in summary["contenders"].items()}
    for run in runs.values():
        assert {unit: run[unit] for unit in ("real_tokens", "examples")} == summary["work_per_repetition"]
        assert run["mean_loss"] == pytest.approx(next(iter(runs.values()))["mean_loss"], rel=1e-3)  # no dropout here
    if "samples" in summary:
        check_logits(summary)
        packed, padded = (summary["contenders"][name]["description"]["fill_rate"] for name in ("ours", "ours, padded"))
        assert 2 * padded < packed <= 1
        assert summary["work_per_repetition"]["real_tokens"] == summary["samples"]["real_tokens"]


def check_variables(summary: dict) -> None:
    """All variables, with the same values where both end with arrays."""
    assert summary["work_per_repetition"]["variables"] == 2 * 16 + 7 + 7
    assert {made["repetitions"][0]["variables"] for made in summary["contenders"].values()} == {46}
    assert len(summary["tensors_sha256"]) == 64


def check_equal_samples(summary: dict) -> None:
    """Of a generated file both make the same."""
    assert summary["work_per_repetition"] == {"records": 100} and summary["equal_samples"] == 1.0


CHECKS = {"deployment_speed": check_answers, "latency_grid": check_cells, "paddle_reading": check_variables,
          "ernie_conversion": check_equal_samples, "pretrain_data": check_figures,
          "pretrain_speed": check_pretraining, "pretrain_scaling": check_pretraining}  # fmt: skip


def test_stored_results_become_tables(race, tmp_path, capsys):
    name, result = race
    quick, real = tmp_path / "quick.json", tmp_path / "real.json"
    quick.write_text(json.dumps(result))
    with pytest.raises(UserError, match="measures nothing"):
        table.main([str(quick)])
    result["settings"]["quick"] = False
    real.write_text(json.dumps(result))
    table.main([str(real)])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(f"| {name} |")]
    assert len(rows) == sum(len(ours) * peers for ours, peers in CASES[name].values())
    assert all(line.count("|") == len(table.RACES) + 1 for line in lines if line.startswith("|"))
    ratios = [ratio["ratio"] for summary in result["results"].values() for ratio in summary["ratios"].values()]
    assert [f"**{ratio:.2f}**" in row for ratio, row in zip(ratios, rows, strict=True)] == [True] * len(rows)
    [below] = [line for line in lines if line.startswith("- ")]
    assert result["environment"]["command"] in below and result["environment"]["cpu"]["model"] in below
    assert f"{result['environment']['threads']} threads" in below and "MindSpore 2.10" in below


def test_the_published_tables_are_those_of_the_stored_results():
    stored = sorted((BENCHMARKS / "results").glob("*.json"))
    assert stored
    assert table.insert(table.tables(stored), BENCHMARKS / "README.md") == (BENCHMARKS / "README.md").read_text()


def test_tables_need_their_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n")
    page.write_text(table.insert("new", page))
    assert page.read_text() == f"above\n{table.BEGIN}\n\nnew\n\n{table.END}\nbelow\n"
    page.write_text("no marks")
    with pytest.raises(UserError, match="to write between"):
        table.insert("new", page)


def worker(body: str) -> list[str]:
    return ["-c", f"import os, time\nfrom benchmarks.sidebyside import serve\n{body}"]


def test_turns_alternate_after_a_warm_up_on_the_same_cores():
    body = (
        "serve({'cores': len(os.sched_getaffinity(0)), 'omp': os.environ['OMP_NUM_THREADS']},"
        " lambda: {'at': time.monotonic()})"
    )
    results = sidebyside.alternate({"a": worker(body), "b": worker(body)}, 4, threads=1)
    assert [result["description"] for result in results.values()] == [{"cores": 1, "omp": "1"}] * 2
    turns = sorted((run["at"], name) for name, result in results.items() for run in result["repetitions"])
    assert "".join(name for _, name in turns) == "abbaabba"


def test_memory_is_that_of_the_contender_and_not_of_its_parent():
    ballast = np.ones(1 << 25)  # 256 MiB
    results = sidebyside.alternate({"a": worker("serve({}, lambda: None)")}, 1, threads=1)
    assert results["a"]["repetitions"][0]["peak_memory_mib"] < ballast.nbytes >> 20


def test_ratios_pair_the_turns_and_show_their_spread():
    def runs(*seconds):
        repetitions = [{"seconds": s, "cpu_seconds": 2 * s, "peak_memory_mib": 7} for s in seconds]
        return {"description": {}, "repetitions": repetitions}

    summary = sidebyside.summarise({"us": runs(1.0, 2.0, 4.0), "they": runs(3.0, 2.0, 10.0)}, 1, {"samples": 8})
    ratio = summary["ratios"]["us / they"]
    assert ratio == {"ratio": 2.5, "lowest": 1.0, "highest": 3.0, "cpu_ratio": 2.5}
    assert summary["contenders"]["they"]["samples_per_second"] == 8 / 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit('error: the file is bad')", "^a: the file is bad$"),
        ("serve({}, lambda: 1 / 0)", "benchmark worker a failed:.*(?s:.)*ZeroDivisionError"),
    ],
)
def test_a_worker_that_fails_is_an_error(body, message):
    with pytest.raises(UserError, match=message):
        sidebyside.alternate({"a": worker(body)}, 1, threads=1)


def test_other_logits_are_an_error_and_no_ratio(tmp_path):
    features = FeatureSet({"input_ids": np.zeros(5, np.int32)}, np.array([0, 2, 5]), {})
    ours = [np.ones((2, 2)), np.ones((2, 4))]  # the fourth token of the second is padding
    samples.save_logits(str(tmp_path), "ours", ours, features)
    ours[1][:, 3] = 99
    ours[1][0, 2] += 5e-4
    samples.save_logits(str(tmp_path), "near", ours, features)
    ours[1][0, 2] += 1e-3
    samples.save_logits(str(tmp_path), "far", ours, features)
    assert samples.compare_logits(str(tmp_path), ["ours", "near"])["largest_difference"]["near"] == pytest.approx(5e-4)
    with pytest.raises(UserError, match="ours and far do not compute the same"):
        samples.compare_logits(str(tmp_path), ["ours", "near", "far"])


@pytest.mark.parametrize(
    ("change", "message"), [({"mean_loss": 2.4}, "mean loss of peer"), ({"examples": 3}, "trained on")]
)
def test_another_loss_or_fewer_examples_are_an_error(change, message):
    ours = {"mean_loss": 2.0, "examples": 4, "real_tokens": 9}
    contenders = {"ours": {"repetitions": [ours]}, "peer": {"repetitions": [ours | {"mean_loss": 2.2}]}}
    work = {"examples": 4, "real_tokens": 9}
    epochs.check_losses({"contenders": contenders}, work)
    contenders["peer"]["repetitions"] = [ours | change]
    with pytest.raises(UserError, match=message):
        epochs.check_losses({"contenders": contenders}, work)


RACE = "--output {folder}/out.json"
CURVES = "--data_dir features --eval_data_dir features --output_dir {folder}/curves --"
MISTAKES = [
    ("training_speed", f"{RACE} --samples 0 --batch_size -1", "--samples must be at least 1, got 0; --batch_size"),
    ("training_speed", f"{RACE} --weights {{folder}}", "no config.json and no vocab.txt there"),
    ("training_speed", f"{RACE} --weights {{weights}} --data_file {{data}} --samples 999", "--samples asks for 999"),
    ("evaluation_speed", f"{RACE} --threads 100000", "this process may use only"),
    ("evaluation_speed", "--output {folder}", "is a folder; name the JSON file"),
    ("cpp_vs_onnxruntime", f"{RACE} --data_file no.json", "--data_file no.json: no such file"),
    ("cpp_vs_onnxruntime", f"{RACE} --rows 0", "--rows must be at least 1"),
    ("conversion", f"{RACE} --repetitions 0", "--repetitions must be at least 1"),
    ("conversion", f"{RACE} --vocab_file no.txt", "--vocab_file no.txt: no such file"),
    ("conversion", f"{RACE} --formats numpy --data_file {{weights}}/config.json", "ours: "),
    ("ernie_conversion", f"{RACE} --task cmrc --repeat 2", "--repeat is for TSV files"),
    ("ernie_conversion", f"{RACE} --task cmrc --formats numpy --data_file {{weights}}/config.json", "ours: "),
    ("pretrain_data", f"{RACE} --data_file no.txt", "--data_file no.txt: no such file"),
    ("pretrain_data", f"{RACE} --formats numpy --data_file {{weights}}/config.json", "ours: "),
    ("pretrain_speed", f"{RACE} --network tall", "network 'tall' is unknown"),
    ("pretrain_speed", f"{RACE} --max_seq_length 513", "--network small has positions for 512"),
    ("pretrain_scaling", f"{RACE} --threads 1", "--threads 1: a worker for each of the cores"),
    ("pretrain_scaling", f"{RACE} --batch_size 33", "--batch_size 33: 2 workers cannot share it"),
    ("pretrain_curves", f"{CURVES} --optimizer.name lamb", "leave out --optimizer.name"),
    ("pretrain_curves", f"{CURVES} --packing true --bucket_list 32,64", "leave out --packing, --bucket_list"),
    ("peer_squad_finetune", "--output_dir {folder}/peer --epochs 0", "--epochs must be at least 1"),
    ("peer_squad_finetune", "--output_dir {folder}/peer --train_file {data}", "go together"),
    ("peer_squad_finetune", "--output_dir {folder}/peer --doc_stride 384", "no room"),
    ("peer_squad_finetune", "--output_dir {folder}/peer --train_file {broken} --dev_file {data} --weights {weights}",
     "not in SQuAD v1.1 format, question 1: KeyError('qas')"),
    ("peer_squad_finetune", "--output_dir {data} --weights {weights}", "File exists"),
    ("environment", "--output {folder}", "Is a directory"),
    ("deployment_speed", f"{RACE} --data_file {{data}} --samples 999", "questions, --samples asks for 999"),
    ("latency_grid", f"{RACE} --batches 1 65", "--samples 64: a batch of 65 needs as many"),
    ("latency_grid", f"{RACE} --lengths 64 0", "--lengths, --batches and --minutes must be positive"),
    ("table", "{data}", "is no result of a benchmark"),
    ("table", "no.json", "no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "flags", "message"), MISTAKES)
def test_mistakes_give_one_line_and_exit_code_2(module, flags, message, inputs, capfd):
    broken = inputs["folder"] / "broken.json"
    broken.write_text('{"version": "1.1", "data": [{"paragraphs": [{"context": "Here."}]}]}')
    argv = flags.format(**inputs, broken=broken).split()
    with pytest.raises(SystemExit) as exit_:
        run_main(importlib.import_module(f"benchmarks.{module}").main, argv)
    assert exit_.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]


def test_the_readme_has_a_command_for_every_benchmark():
    """That each of them is understood, tests/unit/test_documents.py checks."""
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    commands = [path.stem for path in BENCHMARKS.glob("*.py") if "run_main(main)" in path.read_text(encoding="utf-8")]
    assert len(commands) >= 7 and "<!-- results -->" in text
    for name in commands:
        assert f"`python -m benchmarks.{name} " in text, name


def test_published_results_can_be_shown_and_name_no_machine():
    stored = sorted((BENCHMARKS / "results").glob("*.json"))
    for path in stored:
        assert not re.search(r'["\s=]/\w', path.read_text(encoding="utf-8")), f"{path}: holds an absolute path"
    assert table.tables(stored).count("\n- ") == len(stored)
