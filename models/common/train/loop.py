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
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor

from models.common.errors import UserError
from models.common.optim.loss_scale import DynamicLossScale
from models.common.optim.schedule import Schedule
from models.common.progress import Progress
from models.common.train.batches import BatchPlan
from models.common.train.checkpoints import CheckpointFolder, State
from models.common.train.inputs import Inputs
from models.common.train.metrics_log import MetricsLog, NoLog
from models.common.train.step import AccumulatedStep, TrainStep, scalar
from models.common.train.workers import ALONE, Workers


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
    """How often, in steps; 0 means at the end of each epoch. `keep` checkpoints stay on disk; 0 saves none.

    look: so many steps, at most, are begun before the results of the first are waited for; their log lines then come
    together, and a divergence or Ctrl-C is noticed as much later. More than 1 needs a loss that is not scaled: the
    next scale depends on what this step gave.
    """

    evaluate: int = 0
    checkpoint: int = 0
    keep: int = 2
    look: int = 1


@dataclass(frozen=True)
class Job:
    """What is trained.

    inputs: how many steps are completed -> the inputs of those behind them (`models.common.train.inputs`).
    evaluate: scores the present weights; None trains without. score: the name of the score that "best" means.
    save_weights: called with "best" after an evaluation better than all before, and with "last" at the end.
    identity: JSON-ready; a run can only be resumed by one of the same identity (settings, data, first weights).
    evaluation_identity: what is evaluated on, and how; when it changes, scores of before no longer count as best.
    """

    plan: BatchPlan
    schedule: Schedule
    seed: int
    inputs: Callable[[int], Inputs]
    save_weights: Callable[[str], None]
    identity: Mapping[str, Any]
    evaluate: Callable[[], Mapping[str, float]] | None = None
    evaluation_identity: str = ""
    score: str = "f1"
    loss_scale: DynamicLossScale | None = None


@dataclass(frozen=True)
class Begun:
    """A step that the device works on: what is known of it, and its results, as far as they are there."""

    index: int
    epoch: int
    samples: int
    rate: float
    results: tuple[Tensor, Tensor, Tensor]  # loss, gradient norm, were all gradients finite


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
            with (
                Progress("train", total, "step", initial=completed) as progress,
                closing(self.job.inputs(completed)) as inputs,
            ):
                for steps in self._between_looks(completed):
                    with uninterrupted():
                        began = time.perf_counter()
                        self._look([self._begin(index, inputs) for index in steps], began, log, progress)
                    self._after_step(steps.stop, log)
            if self.job.evaluate is not None and self.best is None:
                # A finished run is given something else to be scored on.
                self._evaluate(total, log)
                self._save(total)
        finally:
            with uninterrupted():
                log.close()
        self.job.save_weights("last")
        return self.best

    def _between_looks(self, completed: int) -> Iterator[range]:
        """The steps behind the completed ones, in groups whose results are read together; none goes on behind an
        evaluation, a checkpoint, or the end."""
        first = completed
        for behind in range(completed + 1, self.job.plan.total_steps + 1):
            if behind - first == self.cadence.look or self._evaluates(behind) or self._saves(behind):
                yield range(first, behind)
                first = behind

    def _begin(self, index: int, inputs: Inputs) -> Begun:
        """Give the device a step to work on."""
        scale, rate = self.job.loss_scale, self.job.schedule(index)
        tensors, samples, epoch = next(inputs)
        results = self.step(
            # Workers draw their dropout as steps that follow each other.
            Tensor([self.job.seed, index * self.workers.size + self.workers.rank], ms.int32),
            scalar(rate),
            scalar(index + 1),
            scalar(scale.scale if scale else 1.0),
            *tensors,
        )
        return Begun(index, epoch, samples, rate, results)

    def _look(self, begun: list[Begun], began: float, log: MetricsLog, progress: Progress) -> None:
        """Read the results of steps, the first of which began at that time; log them up to one that has diverged."""
        read = [[result.asnumpy().item() for result in step.results] for step in begun]
        seconds = round((time.perf_counter() - began) / len(begun), 4)
        for step, (loss, norm, finite) in zip(begun, read, strict=True):
            values = {"loss": loss, "grad_norm": norm, "learning_rate": step.rate}
            values |= {"epoch": step.epoch, "samples": step.samples, "seconds": seconds}
            values |= self._judge(step.index, loss, norm, finite)
            log.write(step.index + 1, "train", values)
            overflows = {"overflows": values["overflows"]} if "overflows" in values else {}
            progress.update(epoch=step.epoch + 1, loss=loss, lr=step.rate, **overflows)

    def _judge(self, index: int, loss: float, norm: float, finite: bool) -> dict[str, float]:
        """Adapt the loss scale, if there is one, and tell about it. Raises `UserError` when training has diverged."""
        scale, told, reason = self.job.loss_scale, {}, f"loss {loss}, gradient norm {norm}"
        if scale is None:
            diverged = not (math.isfinite(loss) and math.isfinite(norm))
        else:
            diverged, used = scale.exhausted and not finite, scale.scale
            scale.update(finite)
            told = {"loss_scale": used, "overflows": scale.overflows}
            reason += f", overflow {scale.overflows_in_a_row} in a row, with loss scale {used:g}"
        if diverged:
            raise UserError(f"step {index + 1}: {reason}; training has diverged, lower the learning rate")
        return told

    def _after_step(self, completed: int, log: MetricsLog) -> None:
        if self._evaluates(completed):
            self._evaluate(completed, log)
        if self._saves(completed):
            self._save(completed)

    def _evaluates(self, completed: int) -> bool:
        return self.job.evaluate is not None and self._due(completed, self.cadence.evaluate)

    def _saves(self, completed: int) -> bool:
        return self._due(completed, self.cadence.checkpoint)

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
                print(f"warning: {message}; the checkpoint before it is used", flush=True)
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
