"""The conditional random field against all paths of small samples, and step-by-step algorithms for larger ones."""

import itertools
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

from models.common.nn.crf import Crf
from tests.tolerances import TOLERANCES

PARAMETERS = ("transitions", "start", "end")


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=before)


class Everything(nn.Cell):
    """Loss, its gradients by the scores and by every parameter, and the best paths, in one graph."""

    def __init__(self, crf: Crf) -> None:
        super().__init__(auto_prefix=False)
        self.crf = crf
        self.loss_and_gradients = mindspore.value_and_grad(self.loss, 0, crf.trainable_params())

    def loss(self, scores, labels, sequence_ids, position_ids):
        return self.crf.loss(scores, labels, sequence_ids, position_ids)

    def construct(self, scores, labels, sequence_ids, position_ids):
        loss, gradients = self.loss_and_gradients(scores, labels, sequence_ids, position_ids)
        return loss, gradients, self.crf(scores, sequence_ids, position_ids)


# Lengths of the samples of each row, row length, labels. A row may be empty, full, or begin with a sample of one token.
CASES = {
    "packed": SimpleNamespace(rows=((3, 1, 2), (7,), (), (1, 4), (1, 1, 1, 1, 1, 1, 1)), tokens=7, labels=3),
    "padded": SimpleNamespace(rows=((5,), (2,), (1,)), tokens=5, labels=4),
    "two labels": SimpleNamespace(rows=((8,), (3, 5)), tokens=8, labels=2),
}
LARGE = SimpleNamespace(rows=((40,), (17, 1, 9, 12), ()), tokens=40, labels=45)


class Batch:
    """Rows of random samples. Padding holds scores and labels too, which must not matter."""

    def __init__(self, case: SimpleNamespace, scale: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shape = (len(case.rows), case.tokens)
        self.scores = rng.normal(0.0, scale, (*shape, case.labels)).astype(np.float32)
        self.labels = rng.integers(0, case.labels, shape).astype(np.int32)
        self.sequence_ids, self.position_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.places = []  # (row, its tokens) of each sample
        for row, lengths in enumerate(case.rows):
            ends = np.cumsum(lengths, dtype=int)
            for slot, (length, end) in enumerate(zip(lengths, ends, strict=True)):
                own = slice(end - length, end)
                self.sequence_ids[row, own] = slot + 1
                self.position_ids[row, own] = np.arange(length)
                self.places.append((row, own))
        self.parameters = {
            "transitions": rng.normal(0.0, 1.0, (case.labels, case.labels)).astype(np.float32),
            "start": rng.normal(0.0, 1.0, case.labels).astype(np.float32),
            "end": rng.normal(0.0, 1.0, case.labels).astype(np.float32),
        }

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        return self.scores, self.labels, self.sequence_ids, self.position_ids


@pytest.fixture(scope="module")
def cells():
    """One compiled graph for each shape."""
    return {}


def run(cells: dict, batch: Batch) -> SimpleNamespace:
    cell = cells.setdefault(batch.scores.shape, Everything(Crf(batch.scores.shape[-1])))
    for parameter in cell.crf.trainable_params():
        parameter.set_data(Tensor(batch.parameters[parameter.name]))
    loss, (by_scores, by_parameters), path = cell(*map(Tensor, batch.inputs))
    names = [parameter.name for parameter in cell.crf.trainable_params()]
    assert sorted(names) == sorted(PARAMETERS)
    gradients = {name: value.asnumpy() for name, value in zip(names, by_parameters, strict=True)}
    return SimpleNamespace(
        loss=loss.asnumpy(), gradients={"scores": by_scores.asnumpy(), **gradients}, path=path.asnumpy()
    )


def path_score(scores, path, parameters) -> float:
    """Score of one path over one sample [n, L], in float64."""
    steps = sum(float(parameters["transitions"][i, j]) for i, j in itertools.pairwise(path))
    ends = float(parameters["start"][path[0]]) + float(parameters["end"][path[-1]])
    return ends + steps + sum(float(scores[t, label]) for t, label in enumerate(path))


def brute_force(batch: Batch) -> SimpleNamespace:
    """Every path of every sample. The gradient of -log p is what a feature is expected to be, less what it is."""
    labels = batch.scores.shape[-1]
    gradients = {"scores": np.zeros(batch.scores.shape), **{n: np.zeros(v.shape) for n, v in batch.parameters.items()}}
    losses, best = [], np.zeros(batch.labels.shape, np.int32)

    def count(path, row, own, weight):
        gradients["start"][path[0]] += weight
        gradients["end"][path[-1]] += weight
        for pair in itertools.pairwise(path):
            gradients["transitions"][pair] += weight
        gradients["scores"][row, np.arange(own.start, own.stop), list(path)] += weight

    for row, own in batch.places:
        scores, given = batch.scores[row, own], tuple(batch.labels[row, own].tolist())
        paths = list(itertools.product(range(labels), repeat=len(scores)))
        logits = np.array([path_score(scores, path, batch.parameters) for path in paths])
        log_sum = logits.max() + np.log(np.exp(logits - logits.max()).sum())
        losses.append(log_sum - path_score(scores, given, batch.parameters))
        best[row, own] = paths[int(logits.argmax())]
        for path, logit in zip(paths, logits, strict=True):
            count(path, row, own, np.exp(logit - log_sum))
        count(given, row, own, -1.0)
    number = len(batch.places)
    return SimpleNamespace(
        loss=np.mean(losses), path=best, gradients={name: value / number for name, value in gradients.items()}
    )


def step_by_step(batch: Batch) -> SimpleNamespace:
    """The forward algorithm in float64 with torch's gradients, and Viterbi's, one token after the other."""
    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in
              {"scores": batch.scores, **batch.parameters}.items()}  # fmt: skip
    transitions, start, end = (leaves[name] for name in PARAMETERS)
    total, best = torch.zeros((), dtype=torch.float64), np.zeros(batch.labels.shape, np.int32)
    for row, own in batch.places:
        scores, given = leaves["scores"][row, own], batch.labels[row, own].tolist()
        forward = start + scores[0]
        for score in scores[1:]:
            forward = torch.logsumexp(forward[:, None] + transitions, 0) + score
        total = total + torch.logsumexp(forward + end, 0)
        total = total - start[given[0]] - end[given[-1]] - sum(s[label] for s, label in zip(scores, given, strict=True))
        total = total - sum(transitions[pair] for pair in itertools.pairwise(given))
        best[row, own] = viterbi(batch.scores[row, own].astype(np.float64), batch.parameters)
    loss = total / len(batch.places)
    loss.backward()
    return SimpleNamespace(
        loss=loss.item(), path=best, gradients={name: leaf.grad.numpy() for name, leaf in leaves.items()}
    )


def viterbi(scores: np.ndarray, parameters: dict[str, np.ndarray]) -> list[int]:
    best, came_from = parameters["start"] + scores[0], []
    for score in scores[1:]:
        candidates = best[:, None] + parameters["transitions"]
        came_from.append(candidates.argmax(0))
        best = candidates.max(0) + score
    path = [int((best + parameters["end"]).argmax())]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return path[::-1]


def assert_same(actual: SimpleNamespace, expected: SimpleNamespace, batch: Batch) -> None:
    rtol, atol, _ = TOLERANCES["loss"]
    np.testing.assert_allclose(actual.loss, expected.loss, rtol, atol)
    rtol, atol, _ = TOLERANCES["crf gradients"]
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(actual.gradients[name], gradient, rtol, atol, err_msg=name)
    np.testing.assert_array_equal(actual.path, expected.path)
    padding = batch.sequence_ids == 0
    assert (actual.gradients["scores"][padding] == 0).all() and (actual.path[padding] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 10.0, 1000.0], ids=["usual", "confident", "beyond exp"])
@pytest.mark.parametrize("name", CASES)
def test_small_samples_are_those_of_all_paths(cells, name, scale):
    batch = Batch(CASES[name], scale)
    assert_same(run(cells, batch), brute_force(batch), batch)


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_large_samples_are_those_of_the_step_by_step_algorithms(cells, scale):
    batch = Batch(LARGE, scale)
    assert_same(run(cells, batch), step_by_step(batch), batch)


def test_the_two_references_agree():
    batch = Batch(CASES["packed"], 1.0)
    first, second = brute_force(batch), step_by_step(batch)
    assert first.loss == pytest.approx(second.loss, rel=1e-12)
    np.testing.assert_array_equal(first.path, second.path)
    for name, gradient in first.gradients.items():
        np.testing.assert_allclose(second.gradients[name], gradient, 1e-9, 1e-12)


def test_what_padding_holds_is_irrelevant(cells):
    batch = Batch(CASES["packed"], 1.0)
    first = run(cells, batch)
    padding = batch.sequence_ids == 0
    batch.scores[padding], batch.labels[padding], batch.position_ids[padding] = 1e6, 2, 5
    second = run(cells, batch)
    assert second.loss == first.loss
    np.testing.assert_array_equal(second.path, first.path)
    for name, gradient in first.gradients.items():
        np.testing.assert_array_equal(second.gradients[name], gradient)


def test_equal_paths_give_one_of_them(cells):
    """Where many paths are best, the result is one of these, and not a mixture."""
    batch = Batch(CASES["packed"], 1.0)
    rng = np.random.default_rng(1)
    batch.scores[:] = rng.integers(-1, 2, batch.scores.shape)
    for name, value in batch.parameters.items():
        batch.parameters[name] = rng.integers(-1, 2, value.shape).astype(np.float32)
    found, expected = run(cells, batch), brute_force(batch)
    assert (found.path != expected.path).any(), "no ties in this batch, so nothing is shown"
    for row, own in batch.places:
        scores = batch.scores[row, own]
        values = [path_score(scores, path[row, own].tolist(), batch.parameters) for path in (found.path, expected.path)]
        assert values[0] == values[1]


def test_a_batch_without_samples_costs_nothing(cells):
    batch = Batch(CASES["packed"], 1.0)
    batch.sequence_ids[:] = 0
    result = run(cells, batch)
    assert result.loss == 0.0 and (result.path == 0).all()
    assert all(np.abs(gradient).max() < 1e-30 for gradient in result.gradients.values())


@pytest.mark.parametrize("spread", [20.0, 60.0])
def test_strict_transitions_stay_right(cells, spread):
    """The best label of one token may hardly be followed by any of the next: nothing of the rest may be lost."""
    batch = Batch(CASES["packed"], 1000.0)
    rng = np.random.default_rng(2)
    for name, value in batch.parameters.items():
        batch.parameters[name] = (rng.integers(0, 2, value.shape) * -spread).astype(np.float32)
    actual, expected = run(cells, batch), brute_force(batch)
    rtol, atol, _ = TOLERANCES["loss"]
    np.testing.assert_allclose(actual.loss, expected.loss, rtol, atol)
