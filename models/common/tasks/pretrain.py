"""Pretraining, the words that are hidden and the relation of a sample's two texts: network inputs, scores; numpy only.

Features hold per token `mlm_label`, the id of the word to find where one is hidden or to be looked at again, else -1;
and per sample `next_sentence_label`, 0 where the second text follows the first, 1 where it is a random one.
Shapes: N samples, R rows, T tokens a row, S the most samples a row may hold, P the most targets a batch may hold.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from models.common.errors import UserError
from models.common.packing import PackedBatch, Row, Samples

SCORES = ("mlm_accuracy", "nsp_accuracy", "mlm_loss", "nsp_loss")


def target_counts(samples: Samples) -> np.ndarray:
    """How many words are to be found in each sample, int64 [N]."""
    before = np.concatenate([[0], np.cumsum(samples.tokens["mlm_label"] >= 0)])
    return np.diff(before[samples.starts])


def most_targets(counts: np.ndarray, batches: Iterable[Sequence[Row]]) -> int:
    """The most targets in one of `batches`, each given by its rows; `counts` [N] of each sample. At least 1."""
    return max((int(counts[np.concatenate(rows)].sum()) for rows in batches if rows), default=0) or 1


def training_inputs(samples: Samples, batch: PackedBatch, max_samples: int, max_targets: int) -> list[np.ndarray]:
    """The inputs of the training network for one packed batch, in its order.

    Four int32 [R, T]; places of targets in the R * T tokens and the words there, int32 [P] each; float32 [P], 1 where
    there is a target; int32 [R, S]; float32 [R, S], 1 where a sample exists. Raises ValueError when there are more
    than `max_targets`.
    """
    arrays = [batch.arrays[name] for name in ("input_ids", "sequence_ids", "token_type_ids", "position_ids")]
    labels = batch.per_token_grid(samples.tokens["mlm_label"], samples.starts)
    places = np.flatnonzero((labels >= 0) & (batch.arrays["sequence_ids"] > 0))
    if len(places) > max_targets:
        raise ValueError(f"{len(places)} targets in a batch, {max_targets} have room")
    targets = np.zeros((2, max_targets), np.int32)
    targets[:, : len(places)] = places, labels.reshape(-1)[places]
    arrays += [*targets, (np.arange(max_targets) < len(places)).astype(np.float32)]
    relations = samples.scalars["next_sentence_label"][batch.samples].astype(np.int32)
    arrays.append(batch.per_sample_grid(relations, max_samples))
    arrays.append(batch.per_sample_grid(np.ones(len(batch.samples), np.float32), max_samples))
    return arrays


class Tally:
    """The scores of any number of evaluated batches."""

    def __init__(self) -> None:
        self.totals = np.zeros((2, 3))  # of masked-LM and of the next sentence: count, hits, sum of the losses

    def add(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """`training_inputs` of a batch, and what `PretrainingEvaluationNetwork` gives for it."""
        _, _, _, _, _, words, targets, relations, existing = inputs
        found_words, word_losses, found_relations, relation_losses = outputs
        self.totals += (
            _totals(found_words == words, word_losses, targets > 0),
            _totals(found_relations == relations, relation_losses, existing > 0),
        )

    def scores(self) -> dict[str, float]:
        """The values of `SCORES`: accuracies as fractions, losses as means. Raises `UserError` where there were no
        targets, or no samples."""
        count, hits, losses = self.totals.T
        if not count.all():
            raise UserError("nothing to score: the data have no masked word")
        return dict(zip(SCORES, [*(hits / count).tolist(), *(losses / count).tolist()], strict=True))


def _totals(hits: np.ndarray, losses: np.ndarray, counted: np.ndarray) -> tuple[float, float, float]:
    return float(counted.sum()), float(hits[counted].sum()), float(losses[counted].sum(dtype=np.float64))
