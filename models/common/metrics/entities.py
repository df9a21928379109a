"""Scores of named entity recognition, fractions in [0, 1] as seqeval and scikit-learn give them.

`score_entities` is the figure to report: an entity counts as found when its first unit, its last unit and its type are
all right. On entities read by `models.common.tagging.decode_tags` it equals seqeval (mode="strict", IOB2 or IOBES) to
the last digit, so the formulas below are not to be rearranged.

The two others are what the original README prints as "BF1" and "MF1". They score single tags, so they are higher than
the entity F1 and cannot be compared with it.

A quotient without a denominator (nothing predicted, nothing to find) is 0, as in both libraries.
"""

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from models.common.errors import UserError
from models.common.metrics.classification import averaged_f1
from models.common.tagging import OUTSIDE


class Typed(Protocol):
    """What can be counted: equal when it is the same find, with a type. A `tagging.Entity` is one."""

    @property
    def type(self) -> str:
        """Type of the entity."""

    def __hash__(self) -> int: ...


def score_entities(gold: Sequence[Collection[Typed]], predicted: Sequence[Collection[Typed]]) -> dict[str, Any]:
    """Compare the entities of each sentence.

    Returns:
        `{"precision", "recall", "f1", "support", "macro_f1", "types": {type: {"precision", "recall", "f1",
        "support"}}}`, ready for JSON: first over all entities (micro), with the number of gold entities as support;
        `macro_f1` is the mean over the types that occur in gold or predictions, 0 if none does; types are sorted.

    Raises:
        UserError: there are no sentences. ValueError: the numbers of sentences differ.
    """
    _require_pairs(gold, predicted)
    counts: dict[str, list[int]] = {}  # type -> [right, predicted, gold]
    for wanted, found in zip(map(set, gold), map(set, predicted), strict=True):
        for column, entities in enumerate((wanted & found, found, wanted)):
            for entity in entities:
                counts.setdefault(entity.type, [0, 0, 0])[column] += 1
    types = {kind: _figures(*counts[kind]) for kind in sorted(counts)}
    totals = np.sum(list(counts.values()) or [[0, 0, 0]], axis=0).tolist()
    macro = float(np.mean([figures["f1"] for figures in types.values()])) if types else 0.0
    return {**_figures(*totals), "macro_f1": macro, "types": types}


def class_blind_token_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The original's "BF1": F1 of the question whether a tag is O, whatever its type and prefix.

    A position is right when both tags are not O, a false alarm when only the predicted one is not, a miss when only the
    gold one is not. `gold` and `predicted` hold the tags of the counted units of each sentence. The original counted
    [CLS], [SEP] and padding too, so its printed figures (0.8669 on CLUENER) were made another way.
    """
    wanted, found = (tags != OUTSIDE for tags in _flat_tags(gold, predicted))
    return averaged_f1(found.astype(np.int64), wanted.astype(np.int64), "binary")


def token_macro_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The original's "MF1": the mean over tags, O among them, of the F1 of each tag.

    Tags that occur in neither are left out, as in scikit-learn's f1_score(average="macro"). `gold` and `predicted` hold
    the tags of the counted units of each sentence.
    """
    wanted, found = _flat_tags(gold, predicted)
    _, numbers = np.unique(np.concatenate([found, wanted]), return_inverse=True)
    return averaged_f1(numbers[: len(found)], numbers[len(found) :], "macro")


def _figures(right: int, predicted: int, gold: int) -> dict[str, float | int]:
    precision = right / predicted if predicted else 0.0
    recall = right / gold if gold else 0.0
    f1 = 2.0 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": gold}


def _flat_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Gold and predicted tags of all sentences in a row each, checked to be as many."""
    _require_pairs(gold, predicted)
    for index, (wanted, found) in enumerate(zip(gold, predicted, strict=True)):
        if len(wanted) != len(found):
            raise ValueError(f"sentence {index}: {len(wanted)} gold tags, {len(found)} predicted")
    return np.array(list(chain(*gold)), dtype=str), np.array(list(chain(*predicted)), dtype=str)


def _require_pairs(gold: Sequence, predicted: Sequence) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences, {len(predicted)} predicted")
    if not len(gold):
        raise UserError("there are no sentences to score; check the evaluation file")
