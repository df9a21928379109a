"""A step over the parts of a batch is the step over the whole batch, whatever the network and however uneven the parts.

Dropout is off here: its masks follow the part.
"""

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from models.common.nn import networks, training
from models.common.optim import optimizers
from models.common.packing import PackedBatch, pack
from models.common.tasks import classification, pretrain, span, tagging
from models.common.train.batches import shares
from models.common.train.step import AccumulatedStep, TrainStep, scalar
from models.common.weights.loading import load_into
from tests.parity.test_bert_network import graph_mode  # noqa: F401
from tests.parity.test_heads import fill
from tests.parity.test_pretraining import pretraining_samples
from tests.parity.test_train_step import CONFIG, EPS
from tests.tolerances import TOLERANCES

TINY = dataclasses.replace(CONFIG, num_hidden_layers=1)
LENGTHS = np.array([9, 4, 12, 7, 20, 3, 5, 2, 11])
ROW, SLOTS, TARGETS, CLASSES, STEPS = 24, 4, 30, 5, 3
PARTS = (((0, 1), (2, 3, 5)), ((4,),), ((6, 7, 8),))  # the samples of the rows: 5 of them, 1 and 3
WHOLE = [row for part in PARTS for row in part]


def samples_of(batch: PackedBatch) -> int:
    return len(batch.samples)


def targets_of(samples, batch: PackedBatch) -> int:
    return int(pretrain.target_counts(samples)[batch.samples].sum())


def tokens_of(batch: PackedBatch) -> int:
    return int((batch.arrays["sequence_ids"] > 0).sum())


def tags(samples, batch):
    return tagging.training_inputs(samples, batch)


def pretraining(samples, batch):
    return pretrain.training_inputs(samples, batch, SLOTS, TARGETS)


# The network, the one around it that trains it, the inputs of a batch, and what its losses are means over.
NETWORKS = {
    "pretraining": (
        lambda: networks.PretrainingNetwork(TINY, SLOTS), training.PretrainingTrainingNetwork, pretraining,
        lambda samples, batch: [targets_of(samples, batch), samples_of(batch)],
    ),
    "span": (
        lambda: networks.SpanNetwork(TINY), training.SpanTrainingNetwork,
        lambda samples, batch: span.training_inputs(samples, batch, SLOTS), lambda _, batch: [samples_of(batch)],
    ),
    "classification": (
        lambda: networks.ClassificationNetwork(TINY, CLASSES, SLOTS), training.ClassificationTrainingNetwork,
        lambda samples, batch: classification.training_inputs(samples, batch, SLOTS),
        lambda _, batch: [samples_of(batch)],
    ),
    "tagging": (
        lambda: networks.TaggingNetwork(TINY, CLASSES, SLOTS), training.TaggingTrainingNetwork, tags,
        lambda _, batch: [tokens_of(batch)],
    ),
    "tagging with a field": (
        lambda: networks.TaggingNetwork(TINY, CLASSES, SLOTS, crf=True), training.TaggingTrainingNetwork, tags,
        lambda _, batch: [samples_of(batch)],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def samples():
    result = pretraining_samples(11, LENGTHS, CONFIG.vocab_size)
    rng = np.random.default_rng(12)
    start = rng.integers(0, LENGTHS)
    result.scalars |= {
        "label": rng.integers(0, CLASSES, len(LENGTHS)).astype(np.int32),
        "start_position": start, "end_position": rng.integers(start, LENGTHS),
    }  # fmt: skip
    result.tokens["tag_id"] = rng.integers(0, CLASSES, int(LENGTHS.sum())).astype(np.int32)
    return result


def optimizer_of(network: nn.Cell) -> nn.Cell:
    return optimizers.AdamW(network.trainable_params(), 0.1, 0.9, 0.999, EPS)


def run(step, arrays: list[np.ndarray], scales: dict[int, float]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps of these numbers with these loss scales: loss, norm and finiteness of each, [steps, 3], and the state."""
    results = []
    for index, scale in scales.items():
        scalars = (scalar(1e-2), scalar(index + 1), scalar(scale))
        results.append([float(x.asnumpy()) for x in step(Tensor([1, index], ms.int32), *scalars, *map(Tensor, arrays))])
    return np.array(results), {name: p.asnumpy().copy() for name, p in step.parameters_dict().items()}


def chained(samples, inputs, counts) -> list[np.ndarray]:
    """The inputs of an `AccumulatedStep`: of each part its shares and its arrays."""
    batches = [pack(samples, part, ROW, row_count=2) for part in PARTS]
    of_parts = shares(np.array([counts(samples, batch) for batch in batches], np.float64))
    assert len(np.unique(of_parts)) > 2
    arrays = ([share, *inputs(samples, batch)] for share, batch in zip(of_parts, batches, strict=True))
    return [array for part in arrays for array in part]


def assert_same(ours, expected) -> None:
    rtol, atol, _ = TOLERANCES["training steps"]
    np.testing.assert_allclose(ours[0], expected[0], rtol, atol)
    assert ours[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_allclose(ours[1][name], value, rtol, atol, err_msg=name)


@pytest.mark.parametrize("kind", NETWORKS)
def test_accumulated_parts_are_the_whole_batch(kind, samples):
    make, training_network, inputs, counts = NETWORKS[kind]
    network, scales = make(), dict.fromkeys(range(STEPS), 1.0)
    tensors = fill(network)
    whole = pack(samples, WHOLE, ROW)
    one = np.ones(len(counts(samples, whole)), np.float32)
    step = TrainStep(training.PartOfStep(training_network(network)), optimizer_of(network), 0.5)
    expected = run(step, [one, *inputs(samples, whole)], scales)
    load_into(network, tensors)
    step = TrainStep(training.PartOfStep(training_network(network)), optimizer_of(network), 0.5)
    step = AccumulatedStep(step, len(PARTS))
    assert_same(run(step, chained(samples, inputs, counts), scales), expected)


def test_an_overflow_in_one_part_leaves_everything_as_it_was(samples):
    make, training_network, inputs, counts = NETWORKS["pretraining"]
    network = make()
    tensors = fill(network)
    whole = TrainStep(training.PartOfStep(training_network(network)), optimizer_of(network), 0.5, loss_scaled=True)
    step = AccumulatedStep(whole, len(PARTS))
    arrays = chained(samples, inputs, counts)
    before = {name: p.asnumpy().copy() for name, p in step.parameters_dict().items()}
    size = len(arrays) // len(PARTS)
    broken = [np.full(2, np.inf, np.float32) if place == size else array for place, array in enumerate(arrays)]
    results, after = run(step, broken, {0: 1024.0})
    assert results[0, 2] == 0.0
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    # Nothing of it is left in the sums either.
    ours = run(step, arrays, {1: 1024.0, 2: 64.0})
    assert ours[0][:, 2].all()
    fresh = make()
    load_into(fresh, tensors)
    whole = TrainStep(training.PartOfStep(training_network(fresh)), optimizer_of(fresh), 0.5)
    step = AccumulatedStep(whole, len(PARTS))
    assert_same(ours, run(step, arrays, {1: 1.0, 2: 1.0}))


def test_parts_draw_their_dropout_like_steps(samples):
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.5)
    network = networks.TaggingNetwork(config, CLASSES, SLOTS)
    fill(network)
    frozen = optimizers.Momentum(network.trainable_params(), 0.0, 0.0, 0.999, EPS)
    whole = TrainStep(training.PartOfStep(training.TaggingTrainingNetwork(network)), frozen, 0.0)
    arrays = tags(samples, pack(samples, PARTS[0], ROW))
    scalars = (scalar(0.0), scalar(1), scalar(1.0))

    def losses(step, share, index, times):
        batch = map(Tensor, [np.float32([share]), *arrays] * times)
        return float(step(Tensor([7, index], ms.int32), *scalars, *batch)[0].asnumpy())

    alone = [losses(whole, 1.0, index, 1) for index in (6, 7)]
    together = losses(AccumulatedStep(whole, 2), 0.5, 3, 2)
    assert alone[0] != alone[1]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
