"""Pretraining's arrays against plain loops over samples and tokens; its scores by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.packing import pack, plan_rows
from models.common.tasks import pretrain
from models.common.train.batches import shares

ROW, SLOTS, ROOM = 64, 4, 40


@pytest.fixture(scope="module")
def samples():
    """Twenty samples; the first has no target, and id 0 is a target like any other."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 40, 20)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, 50, starts[-1]).astype(np.int32)
    labels = np.where(rng.random(starts[-1]) < 0.15, rng.integers(0, 3, starts[-1]), -1).astype(np.int32)
    labels[: lengths[0]] = -1
    assert (labels == 0).any()
    tokens = {"input_ids": ids, "token_type_ids": ids % 2, "mlm_label": labels}
    relations = rng.integers(0, 2, 20).astype(np.int64)
    return SimpleNamespace(tokens=tokens, starts=starts, scalars={"next_sentence_label": relations}, lengths=lengths)


def labels_of(samples, sample: int) -> np.ndarray:
    return samples.tokens["mlm_label"][samples.starts[sample] : samples.starts[sample + 1]]


def test_inputs_are_those_of_a_loop(samples):
    rows = plan_rows(samples.lengths, ROW, SLOTS)[2:7]
    batch = pack(samples, rows, ROW, row_count=6)  # the last row is empty
    inputs = pretrain.training_inputs(samples, batch, SLOTS, ROOM)
    places, words, relations, existing = [], [], np.zeros((6, SLOTS)), np.zeros((6, SLOTS))
    for number, row in enumerate(rows):
        place = number * ROW
        for slot, sample in enumerate(row):
            relations[number, slot] = samples.scalars["next_sentence_label"][sample]
            existing[number, slot] = 1
            for label in labels_of(samples, sample):
                if label != -1:
                    places.append(place)
                    words.append(label)
                place += 1
    ones, rest = [1.0] * len(places), [0] * (ROOM - len(places))
    assert [array.tolist() for array in inputs[4:7]] == [places + rest, words + rest, ones + rest]
    np.testing.assert_array_equal(inputs[7], relations)
    np.testing.assert_array_equal(inputs[8], existing)
    types = [str(array.dtype) for array in inputs]
    assert types == ["int32"] * 6 + ["float32", "int32", "float32"]
    with pytest.raises(ValueError, match=f"{len(places)} targets in a batch, 3 have room"):
        pretrain.training_inputs(samples, batch, SLOTS, 3)


def test_room_for_the_targets_of_every_batch(samples):
    counts = pretrain.target_counts(samples)
    assert counts.tolist() == [int((labels_of(samples, sample) >= 0).sum()) for sample in range(20)]
    rows = plan_rows(samples.lengths, ROW, SLOTS)
    batches = [rows[first : first + 2] for first in range(0, len(rows), 2)]
    room = pretrain.most_targets(counts, batches)
    found = [pretrain.training_inputs(samples, pack(samples, batch, ROW, 2), SLOTS, room) for batch in batches]
    assert max(inputs[6].sum() for inputs in found) == room
    assert pretrain.most_targets(counts, [[(0,)], []]) == 1  # an array needs a length


def test_shares_add_up_to_one():
    counts = np.array([[30, 4], [10, 0], [0, 1]], np.float64)
    np.testing.assert_allclose(shares(counts), [[0.75, 0.8], [0.25, 0.0], [0.0, 0.2]])
    assert shares(counts).dtype == np.float32
    assert shares(np.zeros((2, 1))).tolist() == [[0.0], [0.0]]


def evaluated(words, found, losses, relations, found_relations, relation_losses):
    """Inputs and outputs of a batch of three targets and two samples at most; None: there is no such one."""
    real, existing = ([float(value is not None) for value in values] for values in (words, relations))
    words, relations = ([value or 0 for value in values] for values in (words, relations))
    places = np.zeros(3, np.int32)
    inputs = [None] * 4 + [places, np.int32(words), np.float32(real), np.int32([relations]), np.float32([existing])]
    outputs = np.int32(found), np.float32(losses), np.int32([found_relations]), np.float32([relation_losses])
    return inputs, outputs


def test_scores_over_batches_of_unequal_counts():
    tally = pretrain.Tally()
    with pytest.raises(UserError, match="nothing to score"):
        tally.scores()
    tally.add(*evaluated([7, 8, None], [7, 9, 0], [0.5, 2.5, 9], [1, None], [1, 0], [0.25, 9]))
    tally.add(*evaluated([4, None, None], [4, 0, 0], [0, 9, 9], [0, 1], [1, 1], [1.0, 0.25]))
    assert tally.scores() == pytest.approx(
        {"mlm_accuracy": 2 / 3, "nsp_accuracy": 2 / 3, "mlm_loss": 1.0, "nsp_loss": 0.5}
    )
