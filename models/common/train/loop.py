"""The training loop: steps, log, evaluation on a cadence, checkpoints, resume.

Everything that the next step depends on is either in the checkpoint (weights, moments, loss scale, number of completed
steps) or a pure function of seed and step (batches, dropout, learning rate). So a run that was killed at any moment
and is started again gives, on CPU, bit for bit the run that was never killed.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from models.common.errors import UserError
from models.common.optim.loss_scale import DynamicLossScale
from models.common.optim.schedule import Schedule
from models.common.progress import Progress
from models.common.train.batches import BatchPlan, StepPlan
from models.common.train.checkpoints import CheckpointFolder, State
from models.common.train.metrics_log import MetricsLog, NoLog
from models.common.train.step import AccumulatedStep, TrainStep, scalar
from models.common.train.workers import Workers

ALONE = Workers()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C (and SIGTERM, which `run_main` takes for the same) waits until the block is over: a KeyboardInterrupt can
    get lost in MindSpore's callbacks, and TensorBoard's writer can hang when it is interrupted while it queues."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in asked:
        signal.raise_signal(number)


@dataclass(frozen=True)
class Cadence:
    """How often, in steps; 0 means at the end of each epoch. `keep` checkpoints stay on disk; 0 saves none."""

    evaluate: int = 0
    checkpoint: int = 0
    keep: int = 2


@dataclass(frozen=True)
class Job:
    """What is trained.

    make_inputs: the plan of a step -> (arrays of the batch in the order of the network's inputs, number of samples).
    evaluate: scores the present weights; None trains without. score: the name of the score that "best" means.
    save_weights: called with "best" after an evaluation better than all before, and with "last" at the end.
    identity: JSON-ready; a run can only be resumed by one of the same identity (settings, data, first weights).
    evaluation_identity: what is evaluated on, and how; when it changes, scores of before no longer count as best.
    """

    plan: BatchPlan
    schedule: Schedule
    seed: int
    make_inputs: Callable[[StepPlan], tuple[list[np.ndarray], int]]
    save_weights: Callable[[str], None]
    identity: Mapping[str, Any]
    evaluate: Callable[[], Mapping[str, float]] | None = None
    evaluation_identity: str = ""
    score: str = "f1"
    loss_scale: DynamicLossScale | None = None


class Trainer:
    """Runs a `Job` in a run folder, going on from its newest sound checkpoint.

    Of several workers one reads and writes the folder; all go on from what it found there.
    """

    def __init__(
        self, folder: Path, step: TrainStep | AccumulatedStep, job: Job, cadence: Cadence, workers: Workers = ALONE
    ) -> None:
        self.folder, self.step, self.job, self.cadence, self.workers = folder, step, job, cadence, workers
        self.checkpoints = CheckpointFolder(folder / "checkpoints", cadence.keep)
        self.best: dict[str, Any] | None = None

    def run(self, completed: int) -> dict[str, Any] | None:
        """Train to the end behind the `completed` steps that `resume` returned.

        Returns the best evaluation ({"step", scores...}), None without evaluation.
        """
        total = self.job.plan.total_steps
        log = MetricsLog(self.folder, completed) if self.workers.writes else NoLog()
        try:
            with Progress("train", total, "step", initial=completed) as progress:
                for index in range(completed, total):
                    with uninterrupted():
                        values = self._train_step(index)
                        log.write(index + 1, "train", values)
                    progress.update(loss=values["loss"], lr=values["learning_rate"])
                    self._after_step(index + 1, log)
            if self.job.evaluate is not None and self.best is None:
                # A finished run is given something else to be scored on.
                self._evaluate(total, log)
                self._save(total)
        finally:
            with uninterrupted():
                log.close()
        self.job.save_weights("last")
        return self.best

    def _train_step(self, index: int) -> dict[str, Any]:
        began = time.perf_counter()
        plan = self.job.plan.step(index)
        arrays, samples = self.job.make_inputs(plan)
        rate = self.job.schedule(index)
        scale = self.job.loss_scale
        loss, norm, finite = self.step(
            # Workers draw their dropout as steps that follow each other.
            Tensor([self.job.seed, index * self.workers.size + self.workers.rank], ms.int32),
            scalar(rate),
            scalar(index + 1),
            scalar(scale.scale if scale else 1.0),
            *(Tensor(array) for array in arrays),
        )
        values = {"loss": float(loss.asnumpy()), "grad_norm": float(norm.asnumpy()), "learning_rate": rate}
        values |= {"epoch": plan.epoch, "samples": samples, "seconds": round(time.perf_counter() - began, 4)}
        if scale is not None:
            values["loss_scale"] = scale.scale
            diverged = scale.exhausted and not bool(finite.asnumpy())
            scale.update(bool(finite.asnumpy()))
            values["overflows"] = scale.overflows
        else:
            diverged = not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]))
        if diverged:
            reason = f"loss {values['loss']}, gradient norm {values['grad_norm']}"
            if scale is not None:
                reason += f", overflow {scale.overflows_in_a_row} in a row, with loss scale {values['loss_scale']:g}"
            raise UserError(f"step {index + 1}: {reason}; training has diverged, lower the learning rate")
        return values

    def _after_step(self, completed: int, log: MetricsLog) -> None:
        if self.job.evaluate is not None and self._due(completed, self.cadence.evaluate):
            self._evaluate(completed, log)
        if self._due(completed, self.cadence.checkpoint):
            self._save(completed)

    def _evaluate(self, completed: int, log: MetricsLog) -> None:
        scores = dict(self.job.evaluate())
        with uninterrupted():
            log.write(completed, "eval", scores)
        if self.best is None or scores[self.job.score] > self.best[self.job.score]:
            self.best = {"step": completed, **scores}
            self.job.save_weights("best")

    def _due(self, completed: int, every: int) -> bool:
        ends = self.job.plan.epoch_ends
        return completed == ends[-1] or (completed % every == 0 if every else completed in ends)

    def _save(self, completed: int) -> None:
        if not (self.workers.writes and self.cadence.keep):
            return
        arrays = {name: p.asnumpy() for name, p in self.step.parameters_dict().items()}
        scale = self.job.loss_scale
        values = {
            "identity": dict(self.job.identity),
            "best": self.best,
            "evaluation": self.job.evaluation_identity,
            "loss_scale": asdict(scale) if scale else None,
        }
        self.checkpoints.save(completed, arrays, values)

    def resume(self) -> int:
        """Load the newest sound checkpoint of the folder, if any; returns the number of completed steps."""
        state = None
        if self.workers.writes:
            state, damaged = self.checkpoints.newest()
            for message in damaged:
                print(f"warning: {message}", flush=True)
            if state is not None:
                self._check(state)
                print(f"resuming {self.folder} behind step {state.step} of {self.job.plan.total_steps}", flush=True)
        state = self._shared(state)
        if state is None:
            return 0
        self._restore(state)
        return state.step

    def _shared(self, state: State | None) -> State | None:
        """What the worker that writes has read, for all of them."""
        if self.workers.size == 1:
            return state
        step, values = self.workers.broadcast_json([None, {}] if state is None else [state.step, state.values])
        if step is None:
            return None
        arrays = {}
        for name, parameter in self.step.parameters_dict().items():
            arrays[name] = self.workers.broadcast(parameter.asnumpy() if state is None else state.arrays[name])
        return State(step, arrays, values)

    def _check(self, state: State) -> None:
        """Refuse the state of another run."""
        stored, ours = state.values["identity"], dict(self.job.identity)
        differences = [
            f"{key}: {stored.get(key)!r} then, {ours.get(key)!r} now"
            for key in sorted({*stored, *ours})
            if stored.get(key) != ours.get(key)
        ]
        parameters = self.step.parameters_dict()
        if set(parameters) != set(state.arrays):
            differences.append("the network's parameters")
        if differences:
            raise UserError(
                f"{self.folder} holds another run; name another folder, or remove this one. It differs in\n  "
                + "\n  ".join(differences)
            )

    def _restore(self, state: State) -> None:
        for name, parameter in self.step.parameters_dict().items():
            parameter.set_data(Tensor(state.arrays[name]))
        if state.values["evaluation"] == self.job.evaluation_identity:
            self.best = state.values["best"]
        elif state.values["best"] is not None:
            print("scored on something else before: earlier scores do not count for the best weights", flush=True)
        if self.job.loss_scale is not None:
            for name, value in state.values["loss_scale"].items():
                setattr(self.job.loss_scale, name, value)
