"""Targets for masked language models: whole units drawn at random over the whole row, and what stands in their place.

Knows nothing of where samples come from: it takes token ids, the starts of samples (N of them), and the unit that each
token belongs to.
"""

from dataclasses import dataclass

import numpy as np

MASK_SHARE, KEEP_SHARE = 0.8, 0.1  # of the targets; the rest become random tokens


@dataclass(frozen=True)
class Masking:
    """How many tokens of a sample are targets: this share of its length, at least one, at most so many."""

    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 20

    def budgets(self, lengths: np.ndarray) -> np.ndarray:
        """Of samples with these lengths, special tokens included, int64 [N]."""
        wanted = np.rint(lengths * self.masked_lm_prob).astype(np.int64)
        return np.clip(wanted, 1, self.max_predictions_per_seq)


def units_of(begins: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """The unit of each token, int64 [tokens]: the place of its first token, -1 where a token is never a target.

    begins, usable: bool [tokens]; a unit goes up to the next begin or unusable token, which must stand between samples.
    """
    begins = begins | ~usable
    begins[1:] |= ~usable[:-1]
    units = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    return np.where(usable, units, -1)


def choose_targets(units: np.ndarray, starts: np.ndarray, masking: Masking, rng: np.random.Generator) -> np.ndarray:
    """Which tokens are targets, bool [tokens]: units in random order, each one that the budget still has room for.

    units: int64 [tokens], the place of a unit's first token for each of its tokens, wherever they are in the sample.
    """
    lengths = np.diff(starts)
    width = int(lengths.max(initial=1))
    real = np.arange(width) < lengths[:, None]  # [N, width]
    sizes = np.zeros(real.shape, np.int64)  # of the unit whose first token stands here, 0 where there is none
    sizes[real] = np.bincount(units[units >= 0], minlength=len(units))
    keys = rng.random(real.shape)
    keys[sizes == 0] = 2  # behind all units
    order = np.argsort(keys, axis=1)
    chosen = np.zeros(real.shape, bool)
    room = masking.budgets(lengths)
    rows = np.arange(len(lengths))
    for place in order.T:
        size = sizes[rows, place]
        fits = (size > 0) & (size <= room)
        chosen[rows, place] = fits
        room -= size * fits
        if not room.any() or not size.any():
            break
    return (units >= 0) & chosen[real][units]


def replace_targets(
    ids: np.ndarray, targets: np.ndarray, mask_id: int, vocab_size: int, rng: np.random.Generator
) -> np.ndarray:
    """The tokens with 80 % of the targets masked, 10 % left as they are, 10 % random ones of the whole vocabulary."""
    places = np.flatnonzero(targets)
    share = rng.random(len(places))
    instead = np.where(share < MASK_SHARE, mask_id, rng.integers(0, vocab_size, len(places)))
    replaced = ids.copy()
    replaced[places] = np.where(share >= 1 - KEEP_SHARE, ids[places], instead)
    return replaced
