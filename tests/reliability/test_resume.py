"""A run killed with SIGKILL and started again is, bit for bit, the run that was never killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools.convert import SquadConversion, convert_squad
from data_tools.features.span import SpanOptions
from models.bert import run_squad
from models.common.cli import run_main
from models.common.train import loop
from tests.commands import flags
from tests.tiny import write_squad, write_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_STEPS = 18


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("resume")
    data = write_squad(folder / "tiny.json")
    options = SpanOptions(max_seq_length=64, doc_stride=16)
    features = folder / "train"
    convert_squad(SquadConversion(data, minilm_dir / "vocab.txt", features, True, span=options, dataset_format="numpy"))
    weights = write_weights(folder / "weights", minilm_dir / "vocab.txt")
    return {"json": data, "features": features, "weights": weights}


def run_flags(inputs: dict[str, Path], run: Path, **changes: object) -> list[str]:
    settings = {
        "do_train": "true", "do_eval": "true", "epoch_num": 6, "train_batch_size": 3, "max_seq_length": 64,
        "doc_stride": 16, "train_data_file_path": inputs["features"], "eval_json_path": inputs["json"],
        "load_pretrain_checkpoint_path": inputs["weights"], "save_finetune_checkpoint_path": run,
        "save_checkpoint_steps": 2, "eval_steps": 5, "eval_batch_size": 2, "optimizer.learning_rate": "1e-3",
        **changes,
    }  # fmt: skip
    return flags(settings)


def command(inputs: dict[str, Path], run: Path) -> list[str]:
    return [sys.executable, "-m", "models.bert.run_squad", *run_flags(inputs, run)]


def run_to_the_end(arguments: list[str]) -> str:
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def kill_behind_step(arguments: list[str], run: Path, step: int) -> None:
    """Start the command and kill it without warning as soon as it has logged `step`."""
    process = subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and last_step(run) < step:
        assert time.monotonic() < deadline, "the run never got there"
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def interrupt_behind_step(arguments: list[str], run: Path, step: int) -> None:
    """The same with Ctrl-C; the command must have gone on from before, and end in order."""
    # What a shell starts in the background inherits that Ctrl-C is ignored, and these tests may be started so.
    command = ["env", "--default-signal=INT", *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while last_step(run) < step:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert errors.splitlines()[-1] == "interrupted"
    assert "resuming" in output


def train_lines(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return [entry for entry in entries if entry["group"] == "train"]


def last_step(run: Path) -> int:
    return max((entry["step"] for entry in train_lines(run)), default=0)


def record(run: Path) -> list[tuple]:
    """What must be equal: everything a step gave but the time it took."""
    return [tuple(value for name, value in entry.items() if name != "seconds") for entry in train_lines(run)]


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run_to_the_end(command(inputs, run))
    return run


def assert_same_run(run: Path, reference: Path) -> None:
    assert record(run) == record(reference)
    for file in ("best/model.safetensors", "last/model.safetensors", "nbest_predictions.json", "squad.ckpt"):
        assert (run / file).read_bytes() == (reference / file).read_bytes(), file


def test_a_run_stopped_in_every_way_goes_on_bit_for_bit(inputs, uninterrupted, tmp_path):
    """Killed before its first checkpoint and behind it, interrupted, then with its newest checkpoint damaged."""
    assert len(record(uninterrupted)) >= SAMPLE_STEPS
    run = tmp_path / "stopped"
    for step in (1, 6):
        kill_behind_step(command(inputs, run), run, step)
    interrupt_behind_step(command(inputs, run), run, 11)
    newest = sorted((run / "checkpoints").glob("step-*/state.json"))[-1].parent
    arrays = newest / "state.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-100] ^= 1
    arrays.write_bytes(content)
    output = run_to_the_end(command(inputs, run))
    assert f"{arrays}: damaged" in output
    assert "the checkpoint before it is used" in output
    assert "resuming" in output
    assert_same_run(run, uninterrupted)


@pytest.fixture
def handled():
    """The signals that interrupt, as `run_main` has them in a terminal."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before.keys()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_waits_for_what_must_not_be_cut_off(handled):
    for number in handled:
        done = []
        with pytest.raises(KeyboardInterrupt), loop.uninterrupted():
            signal.raise_signal(number)
            done.append("written")
        assert done == ["written"]
        assert signal.getsignal(number) is signal.default_int_handler


def test_what_is_ignored_stays_ignored(handled):
    """A shell's background processes ignore Ctrl-C."""
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
        with loop.uninterrupted():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN


def test_a_folder_that_holds_another_run_is_refused(inputs, uninterrupted, capsys):
    changed = run_flags(inputs, uninterrupted, **{"optimizer.weight_decay": 0.5, "seed": 9})
    with pytest.raises(SystemExit) as exit_:
        run_main(run_squad.main, changed)
    assert exit_.value.code == 2
    errors = capsys.readouterr().err
    assert "holds another run" in errors
    assert "seed: 1 then, 9 now" in errors
    assert "'weight_decay': 0.5" in errors


def test_starting_a_finished_run_again_changes_nothing(inputs, uninterrupted, capsys):
    before = record(uninterrupted)
    run_squad.main(run_flags(inputs, uninterrupted))
    assert record(uninterrupted) == before
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        key: value
        for key, value in json.loads((uninterrupted / "eval.json").read_text()).items()
        if key in ("exact_match", "f1")
    }
