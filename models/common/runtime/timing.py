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
