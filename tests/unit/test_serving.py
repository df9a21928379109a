"""A simulated service: who is answered together, and how long everyone waits."""

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.finetune.serving import ARRIVALS, serve

COUNT = 40


class Samples:
    """As much of a feature set as a service needs: its samples are their numbers."""

    def __init__(self, numbers=None) -> None:
        self.numbers = np.arange(COUNT) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, chosen) -> "Samples":
        return Samples(self.numbers[chosen])


class Model:
    """Answers a sample with its number, a second for each batch and a tenth for each sample."""

    def __init__(self) -> None:
        self.batches, self.seconds, self.latency = [], 0.0, {}

    def predict(self, samples):
        self.batches.append(samples.numbers.tolist())
        self.seconds = 1.0 + 0.1 * len(samples)
        return {"logits": [np.array([number]) for number in samples.numbers]}


def arrivals(rate: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(ARRIVALS)
    order = rng.permutation(COUNT)
    return order, np.cumsum(rng.exponential(1.0 / rate, COUNT))


@pytest.mark.parametrize("rate", [0.2, 3.0, 1000.0])
@pytest.mark.parametrize("max_wait", [0.0, 2.0])
def test_everyone_is_answered_once_in_order_and_waits_no_longer_than_said(rate, max_wait):
    model = Model()
    outputs, times = serve(model, Samples(), rate, max_wait, max_batch=8)
    assert [int(value[0]) for value in outputs["logits"]] == list(range(COUNT))
    order, arrival = arrivals(rate)
    batches = model.batches[1:]  # the first one warms up
    assert [number for batch in batches for number in batch] == order.tolist()
    assert max(map(len, batches)) <= 8 and times["batches"] == len(batches)
    assert times["seconds"] == pytest.approx(sum(1.0 + 0.1 * len(batch) for batch in batches))
    # The clock, told again batch by batch: a batch starts when the model is free and it is full, or its first has
    # waited, or nobody else comes; and it holds whoever is there by then.
    free, first, waited = 0.0, 0, []
    for batch in batches:
        last = first + len(batch)
        full = len(batch) == 8 or last == COUNT
        start = max(free, arrival[last - 1]) if full else max(free, arrival[first] + max_wait)
        assert arrival[last - 1] <= start
        assert full or arrival[last] > start
        free, first = start + 1.0 + 0.1 * len(batch), last
        waited += (free - arrival[last - len(batch) : last]).tolist()
    assert times["latency_ms"]["p50"] == pytest.approx(1e3 * np.percentile(waited, 50), abs=1e-2)
    assert times["latency_ms"]["p99"] == pytest.approx(1e3 * np.percentile(waited, 99), abs=1e-2)


def test_company_is_worth_waiting_for():
    alone, together = Model(), Model()
    serve(alone, Samples(), 3.0, 0.0, max_batch=1)
    serve(together, Samples(), 3.0, 2.0, max_batch=8)
    assert len(together.batches) < len(alone.batches) == COUNT + 1


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 1), (1.0, -1.0, 1), (1.0, 1.0, 0)])
def test_settings_that_make_no_service_are_refused(wrong):
    with pytest.raises(UserError, match="--rate and --max_batch must be positive"):
        serve(Model(), Samples(), *wrong)
