"""The packed span loss against a plain loop, cross-entropy against its formula, both in float64."""

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn
from scipy.special import logsumexp

from models.common.nn.kernels import accelerate
from models.common.nn.losses import CrossEntropy, packed_span_loss
from tests.tolerances import TOLERANCES

# Rows of 9 tokens: two samples and padding; one that fills the row; nothing.
SEQUENCE_IDS = np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1] * 9, [0] * 9], np.int32)
WEIGHTS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
STARTS = np.array([[1, 3, 0], [8, 0, 0], [0, 0, 0]], np.int32)
ENDS = np.array([[2, 6, 0], [8, 0, 0], [0, 0, 0]], np.int32)


class LossAndGradients(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.function = mindspore.value_and_grad(packed_span_loss, (0, 1))

    def construct(self, start, end, sequence_ids, starts, ends, weights):
        return self.function(start, end, sequence_ids, starts, ends, weights)


@pytest.fixture(scope="module")
def loss_and_gradients():
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    cell = LossAndGradients()

    def run(start, end, weights=WEIGHTS):
        loss, gradients = cell(*(Tensor(values) for values in (start, end, SEQUENCE_IDS, STARTS, ENDS, weights)))
        return loss.asnumpy(), [gradient.asnumpy() for gradient in gradients]

    yield run
    mindspore.set_context(mode=before)


def reference(start: np.ndarray, end: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Sample by sample; the gradient of a cross-entropy is softmax minus one at the target."""
    total, count = 0.0, int(WEIGHTS.sum())
    gradients = [np.zeros(start.shape), np.zeros(end.shape)]
    for row, slot in np.argwhere(WEIGHTS):
        own = np.flatnonzero(SEQUENCE_IDS[row] == slot + 1)
        for logits, targets, gradient in ((start, STARTS, gradients[0]), (end, ENDS, gradients[1])):
            values = logits[row, own].astype(np.float64)
            exponents = np.exp(values - values.max())
            softmax = exponents / exponents.sum()
            target = int(np.flatnonzero(own == targets[row, slot])[0])
            total += values.max() + np.log(exponents.sum()) - values[target]
            gradient[row, own] += softmax / (2 * count)
            gradient[row, own[target]] -= 1 / (2 * count)
    return total / (2 * count), gradients


@pytest.mark.parametrize("scale", [1.0, 30.0, 20000.0], ids=["usual", "confident", "beyond exp"])
def test_loss_and_gradients_are_those_of_the_loop(loss_and_gradients, scale):
    generator = np.random.default_rng(0)
    start, end = (generator.normal(0, scale, (3, 9)).astype(np.float32) for _ in range(2))
    loss, gradients = loss_and_gradients(start, end)
    expected_loss, expected_gradients = reference(start, end)
    rtol, atol, _ = TOLERANCES["loss"]
    np.testing.assert_allclose(loss, expected_loss, rtol, atol)
    for actual, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol, atol)


def test_logits_outside_every_sample_have_no_part_in_it(loss_and_gradients):
    generator = np.random.default_rng(1)
    start, end = (generator.normal(0, 1, (3, 9)).astype(np.float32) for _ in range(2))
    expected = loss_and_gradients(start, end)
    start[SEQUENCE_IDS == 0] = end[SEQUENCE_IDS == 0] = 1e6
    actual = loss_and_gradients(start, end)
    assert actual[0] == expected[0]
    for ours, theirs in zip(actual[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert (ours[SEQUENCE_IDS == 0] == 0).all()


def test_half_precision_logits_are_summed_in_float32(loss_and_gradients):
    start, end = (np.full((3, 9), 300.0, np.float16) for _ in range(2))
    loss, _ = loss_and_gradients(start, end)
    assert loss.dtype == np.float32
    assert loss == pytest.approx((np.log(3) + np.log(4) + np.log(9)) / 3, rel=1e-6)


def test_a_batch_without_samples_costs_nothing(loss_and_gradients):
    ones = np.ones((3, 9), np.float32)
    loss, gradients = loss_and_gradients(ones, ones, np.zeros_like(WEIGHTS))
    assert loss == 0.0
    assert all((gradient == 0).all() for gradient in gradients)


class CrossEntropyAndGradient(nn.Cell):
    """Losses, and the gradient of their weighted sum."""

    def __init__(self, loss: CrossEntropy) -> None:
        super().__init__()
        self.loss = loss
        self.gradient = mindspore.grad(self.weighted)

    def weighted(self, logits, labels, weights):
        return (self.loss(logits, labels) * weights).sum()

    def construct(self, logits, labels, weights):
        return self.loss(logits, labels), self.gradient(logits, labels, weights)


@pytest.fixture(scope="module", params=["plain", "kernels"])
def cross_entropy(request):
    loss = CrossEntropy()
    assert request.param == "plain" or accelerate(loss)
    cell = CrossEntropyAndGradient(loss)
    return lambda *arrays: [result.asnumpy() for result in cell(*map(Tensor, arrays))]


@pytest.mark.parametrize("classes", [2, 3000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 20000.0], ids=["usual", "confident", "beyond exp"])
def test_cross_entropy_is_that_of_the_formula(cross_entropy, classes, scale):
    generator = np.random.default_rng(2)
    logits = generator.normal(0, scale, (7, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 7).astype(np.int32)
    weights = generator.random(7).astype(np.float32)
    losses, gradient = cross_entropy(logits, labels, weights)
    exact, rows = logits.astype(np.float64), np.arange(7)
    expected = logsumexp(exact, axis=1) - exact[rows, labels]
    softmax = np.exp(exact - logsumexp(exact, axis=1, keepdims=True))
    softmax[rows, labels] -= 1
    rtol, atol, _ = TOLERANCES["loss"]
    np.testing.assert_allclose(losses, expected, rtol, atol * max(scale, 1.0))
    # A float32 logit is known to 1e-7 of its size, and so then is the exponent.
    np.testing.assert_allclose(gradient, softmax * weights[:, None], 2e-5, 1e-7 * scale)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_cross_entropy_shows_what_is_not_a_number(cross_entropy, broken):
    logits, labels = np.ones((7, 3000), np.float32), np.zeros(7, np.int32)
    logits[3, 100] = broken
    losses, gradient = cross_entropy(logits, labels, np.ones(7, np.float32))
    for values in (losses, gradient):
        finite = np.isfinite(values).reshape(7, -1).all(axis=1)
        assert finite.tolist() == [row != 3 for row in range(7)]
