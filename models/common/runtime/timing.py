"""How long a model took: in all, and batch by batch."""

import time
from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 90, 99)


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 in milliseconds; {} of nothing."""
    if not len(seconds):
        return {}
    values = np.percentile(np.asarray(seconds) * 1e3, PERCENTILES)
    return {f"p{percent}": round(float(value), 3) for percent, value in zip(PERCENTILES, values, strict=True)}


def device_qps(samples: int, batch_size: int, executions: Sequence[float]) -> float:
    """Samples a second by the formula of ixRT's inference.py (Deep-Spark, bert_large_squad): whole batches by what the
    graph alone took for them, in seconds. What fills the last batch counts, what is done before and after does not."""
    return -(-samples // batch_size) * batch_size / sum(executions)


class Stopwatch:
    """Times of consecutive batches: `lap` after each."""

    def __init__(self) -> None:
        self.laps: list[float] = []
        self._last = time.perf_counter()

    def lap(self) -> None:
        """The batch since the last lap is done."""
        now = time.perf_counter()
        self.laps.append(now - self._last)
        self._last = now
