"""Fine-tuning by two workers, started by the script that users start: every task takes the steps of one worker, both
score together what one worker scores, and a run goes on with more workers than it began with."""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load_file

from benchmarks.pretrain_scaling import free_port
from data_tools.convert import SquadConversion, convert_squad
from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.converters.tagging import TaggingConversion, convert_tagging
from data_tools.features.span import SpanOptions
from data_tools.readers.tagging import TaggingLayout
from models.bert import run_squad
from models.common.errors import UserError
from models.common.finetune.batches import Batches
from models.common.finetune.running import build
from models.common.finetune.tagging import TaggingTask
from models.common.train.batches import BatchPlan, part_of
from models.common.train.workers import Workers
from models.common.weights.reading import read_checkpoint
from models.ernie import run_classifier, run_ner
from models.ernie.config import NETWORKS
from tests.commands import flags
from tests.pretraining import curve
from tests.recipes.test_run_classifier import LAYOUT, write_texts
from tests.recipes.test_run_ner import sentences, write_lines
from tests.tiny import write_squad, write_weights
from tests.tolerances import TOLERANCES

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "run_distribute_finetune.sh"
COMMANDS = {"classes": run_classifier, "tags": run_ner, "answers": run_squad}
LENGTH = 64


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, dict[str, object]]:
    """Flags of each task, but for who shares the work. No dropout: each worker draws its own."""
    folder, vocab = tmp_path_factory.mktemp("inputs"), minilm_dir / "vocab.txt"
    texts, lines = write_texts(folder / "a.tsv", repeats=2), write_lines(folder / "a.json", sentences()[:20])
    squad = write_squad(folder / "squad.json")
    convert_classification(ClassificationConversion(
        texts, vocab, folder / "classes", layout=LAYOUT, max_seq_length=LENGTH, dataset_format="numpy"
    ))  # fmt: skip
    convert_tagging(TaggingConversion(
        lines, vocab, folder / "tags", TaggingLayout("cluener", "word"), max_seq_length=LENGTH, dataset_format="numpy"
    ))  # fmt: skip
    convert_squad(SquadConversion(
        squad, vocab, folder / "answers", True, span=SpanOptions(LENGTH, 16), dataset_format="numpy"
    ))  # fmt: skip
    common = {
        "do_train": "true", "do_eval": "true", "max_seq_length": LENGTH, "train_batch_size": 9, "eval_batch_size": 2,
        "load_pretrain_checkpoint_path": write_weights(folder / "weights", vocab), "epoch_num": 4,
        "optimizer.learning_rate": 1e-3, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0,
        "max_samples_per_row": 3, "save_checkpoint_steps": 2, "save_checkpoint_num": 9,
    }  # fmt: skip
    evaluation = {name: {"eval_data_file_path": folder / name} for name in ("classes", "tags")}
    evaluation["answers"] = {"eval_json_path": squad, "doc_stride": 16, "epoch_num": 8}
    return {name: {**common, "train_data_file_path": folder / name, **more} for name, more in evaluation.items()}


def start(task: str, run: Path, settings: dict[str, object]) -> subprocess.CompletedProcess:
    """Two workers on this machine, on one thread each: it may have no more cores than there are workers."""
    rest = flags({**settings, "save_finetune_checkpoint_path": run, "device_num": 2})
    more = ["--master_port", free_port(), "--log_dir", run.parent / "logs", *rest]
    command = list(map(str, ["bash", SCRIPT, 2, COMMANDS[task].__name__, *more]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)


def scores_of(run: Path) -> dict[str, float]:
    scores = json.loads((run / "eval.json").read_text())
    return {name: value for name, value in scores.items() if isinstance(value, float) and "second" not in name}


@pytest.mark.parametrize("task", COMMANDS)
def test_two_workers_train_and_score_as_one_does(inputs, tmp_path, task):
    alone, run = tmp_path / "alone", tmp_path / "two"
    COMMANDS[task].main(flags({**inputs[task], "save_finetune_checkpoint_path": alone}))
    steps = [entry["step"] for entry in curve(alone)]
    if task == "answers":  # goes on where one worker stood in the middle
        shutil.copytree(alone, run)
        for checkpoint in sorted((run / "checkpoints").iterdir())[len(steps) // 4 :]:
            shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    done = start(task, run, inputs[task])
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-3000:]
    assert (f"resuming {run} behind step" in done.stdout) == (task == "answers")
    found, wanted = curve(run), curve(alone)
    assert [entry["step"] for entry in found] == steps and len(steps) > 4
    assert [entry["samples"] for entry in found] == [entry["samples"] for entry in wanted]
    rtol, atol, _ = TOLERANCES["training steps"]
    for name in ("loss", "grad_norm"):
        values = [[entry[name] for entry in entries] for entries in (found, wanted)]
        np.testing.assert_allclose(*values, rtol=rtol, atol=atol)
    assert scores_of(run) == pytest.approx(scores_of(alone), abs=1e-4)
    ours, theirs = (load_file(folder / "last/model.safetensors") for folder in (run, alone))
    theirs.pop("heads.span.bias", None)  # it moves all scores alike: its gradient is rounding, which Adam makes large
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol, atol, err_msg=name)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}


def test_parts_of_a_field_add_up_to_the_loss_of_the_step(inputs, tmp_path):
    """A CRF's loss is a mean over sentences, where the linear head's, above, is one over tokens."""
    settings = {**inputs["tags"], "use_crf": "true", "save_finetune_checkpoint_path": tmp_path}
    task = TaggingTask(run_ner.parse(flags(settings)), NETWORKS)
    checkpoint = read_checkpoint(settings["load_pretrain_checkpoint_path"])
    features = task.training_features(checkpoint)
    network = build(task, checkpoint, new=task.head)
    plan = BatchPlan(features.lengths, LENGTH, 9, epochs=1, seed=1, max_samples=3)
    losses, counts = [], []
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        task.workers = Workers()
        task.workers.rank, task.workers.size = rank, size
        batches = Batches(task, features, plan)
        arrays, samples = batches.inputs(plan.step(0))
        losses.append(float(batches.training_network(network)(*map(Tensor, arrays)).asnumpy()))
        counts.append(samples)
    assert losses[1] + losses[2] == pytest.approx(losses[0], rel=TOLERANCES["loss"].rtol)
    assert losses[1] != pytest.approx(losses[2], rel=0.1) and len(set(counts)) == 1


def test_rows_are_dealt_out_evenly_and_in_order():
    for count, workers in itertools.product(range(12), range(1, 6)):
        rows = [(row,) for row in range(count)]
        parts = [part_of(rows, part, workers) for part in range(workers)]
        assert list(itertools.chain(*parts)) == rows
        assert max(map(len, parts)) == -(-count // workers) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_workers_that_are_not_there_are_refused(inputs, tmp_path):
    settings = {**inputs["classes"], "save_finetune_checkpoint_path": tmp_path / "run"}
    with pytest.raises(UserError, match="--device_num 2 needs --distribute true"):
        run_classifier.main(flags({**settings, "device_num": 2}))
    with pytest.raises(UserError, match="this process is not one of several; start it with a script of scripts/"):
        run_classifier.main(flags({**settings, "distribute": "true"}))
    assert not (tmp_path / "run").exists()


def test_more_workers_than_rows_are_refused(inputs, tmp_path):
    done = start("classes", tmp_path / "run", {**inputs["classes"], "train_batch_size": 3})
    log = (tmp_path / "logs/worker_0.log").read_text()
    assert done.returncode and "--train_batch_size 3: a step has 1 rows, too few for 2 workers" in log
