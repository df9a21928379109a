"""Running a network over a whole feature set in MindSpore, packed."""

from collections.abc import Mapping

import numpy as np
from mindspore import Tensor, nn

from models.common.export.manifest import PACKED_INPUTS
from models.common.packing import PackedBatch, Samples, pack, plan_rows, unpack
from models.common.progress import track
from models.common.runtime.timing import Stopwatch, latency
from models.common.train.workers import ALONE, Workers


class MindSporeRuntime:
    """Feature set -> logits. Batches have one shape [rows, row_length], so one graph is compiled.

    Several workers compute a batch each at a time, and all of them get what all have computed.
    """

    def __init__(
        self, network: nn.Cell, outputs: Mapping[str, str], row_length: int, rows: int, max_samples: int,
        workers: Workers = ALONE,
    ) -> None:  # fmt: skip
        """network: maps the four packed inputs to as many outputs as `outputs` names (name -> per token or sample)."""
        self.network, self.outputs, self.workers = network, outputs, workers
        self.row_length, self.rows, self.max_samples = row_length, rows, max_samples
        self.seconds, self.latency = 0.0, {}
        self._compiled = False

    def predict(self, samples: Samples, order: np.ndarray | None = None) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample.

        order: in which samples are packed (None: longest first); it changes no result beyond rounding. Afterwards
        `seconds` is what it took, without the compilation, for which the first call computes its first batch twice, and
        `latency` what its batches took (`timing.latency`).
        """
        lengths = np.diff(samples.starts)
        plan = plan_rows(lengths, self.row_length, self.max_samples, order)
        results: dict[str, list] = {name: [None] * len(lengths) for name in self.outputs}
        self.network.set_train(False)
        if not self._compiled:
            self._run(pack(samples, plan[: self.rows], self.row_length, self.rows))
            self._compiled = True
        watch, together = Stopwatch(), self.rows * self.workers.size
        for first in track(range(0, len(plan), together), "evaluate", -(-len(plan) // together), "batch"):
            batches = [
                pack(samples, plan[begin : begin + self.rows], self.row_length, self.rows)
                for begin in range(first, first + together, self.rows)
            ]
            outputs = [self.workers.gather(output) for output in self._run(batches[self.workers.rank])]
            for (name, per), of_all in zip(self.outputs.items(), outputs, strict=True):
                for batch, output in zip(batches, of_all, strict=True):
                    for sample, values in unpack(batch, output, lengths, per):
                        results[name][sample] = values
            watch.lap()
        self.seconds, self.latency = sum(watch.laps), latency(watch.laps)
        return results

    def _run(self, batch: PackedBatch) -> list[np.ndarray]:
        outputs = self.network(*(Tensor(batch.arrays[name]) for name in PACKED_INPUTS))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
