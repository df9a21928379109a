"""A model behind a queue: samples arrive one by one, wait a bounded time for company, and are answered together.

Arrivals are drawn from a Poisson process and their times are those of a clock of the simulation; what the model takes
for each batch is measured and moves that clock on. So the waiting is exact, and no time is spent on it.
"""

from typing import Any

import numpy as np

from data_tools.feature_store import FeatureSet
from models.common.errors import UserError
from models.common.runtime.exported import Runtime
from models.common.runtime.timing import latency

ARRIVALS = 0  # seed: every runtime sees the same ones


def serve(
    runtime: Runtime, features: FeatureSet, rate: float, max_wait: float, max_batch: int
) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]]:
    """Answer all samples in the order in which they arrive.

    rate: samples a second; max_wait: seconds that the first of a batch waits for others at most; max_batch: samples.
    Returns the outputs as `predict` does, and "seconds" (all batches), "latency_ms" (arrival to answer, of samples),
    "batches" and "rate".
    """
    if rate <= 0 or max_wait < 0 or max_batch < 1:
        raise UserError("--rate and --max_batch must be positive, --max_wait not negative")
    count = len(features)
    rng = np.random.default_rng(ARRIVALS)
    order = rng.permutation(count)
    arrival = np.cumsum(rng.exponential(1.0 / rate, count))  # of the sample at each place of `order`
    runtime.predict(features.select(order[:1]))  # compiles and warms up
    outputs: dict[str, list] = {}
    waited, busy, now, first, batches = np.zeros(count), 0.0, 0.0, 0, 0
    while first < count:
        now = max(now, arrival[first])
        # Whoever is there now goes; until the first has waited long enough, later ones may join.
        closing = max(now, arrival[first] + max_wait)
        last = first + int(np.searchsorted(arrival[first:], closing, side="right"))
        if last - first >= max_batch:
            last = first + max_batch
            now = max(now, arrival[last - 1])
        else:
            now = closing if last < count else max(now, arrival[last - 1])
        chosen = order[first:last]
        found = runtime.predict(features.select(chosen))
        now, busy, batches = now + runtime.seconds, busy + runtime.seconds, batches + 1
        waited[first:last] = now - arrival[first:last]
        for name, arrays in found.items():
            target = outputs.setdefault(name, [None] * count)
            for sample, array in zip(chosen, arrays, strict=True):
                target[sample] = array
        first = last
    return outputs, {"seconds": busy, "latency_ms": latency(waited), "batches": batches, "rate": rate}
