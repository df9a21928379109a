"""Classes (or one number) for a text or a pair of texts: training inputs, decoding, score; numpy only.

The same code decodes the logits of every runtime. Shapes: N samples, C classes, R rows, T tokens, S samples a row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError
from models.common.files import write_json, write_json_lines
from models.common.metrics import classification as metrics
from models.common.packing import PER_SAMPLE, PackedBatch, Samples

OUTPUTS = {"logits": PER_SAMPLE}
FEATURES = ("classification", "regression")  # as data_tools.convert calls them
RANKING_SCORE = "mrr"
CLASS_SCORES = (RANKING_SCORE, "accuracy", "f1", "mcc")
REGRESSION_SCORES = ("spearman_correlation", "pearson_correlation", "mean_squared_error")


def training_inputs(samples: Samples, batch: PackedBatch, max_samples: int) -> list[np.ndarray]:
    """The inputs of the training network for one packed batch, in its order.

    Four int32 [R, T]; the label of each sample, [R, S] int32 (class) or float32 (number); float32 [R, S], 1 where a
    sample exists.
    """
    arrays = [batch.arrays[name] for name in ("input_ids", "sequence_ids", "token_type_ids", "position_ids")]
    arrays.append(batch.per_sample_grid(samples.scalars["label"][batch.samples], max_samples))
    arrays.append(batch.per_sample_grid(np.ones(len(batch.samples), np.float32), max_samples))
    return arrays


def scores(logits: np.ndarray, gold: np.ndarray, questions: np.ndarray | None = None) -> dict[str, float]:
    """All scores of float [N, C] logits against gold labels [N]: integers are classes, floats are numbers (C = 1).

    questions: int64 [N], where the samples are candidate answers: those of each are ranked by class 1 (C = 2), whose
    share Baidu ranks by; the difference of the logits has the same order, and no ties where shares round to 1.
    """
    if np.issubdtype(gold.dtype, np.floating):
        values, gold = logits[:, 0].astype(np.float64), gold.astype(np.float64)
        return {
            "spearman_correlation": metrics.spearman(values, gold),
            "pearson_correlation": metrics.pearson(values, gold),
            "mean_squared_error": float(np.mean((values - gold) ** 2)),
        }
    found = logits.argmax(axis=1)
    ranked = {}
    if questions is not None and logits.shape[1] == 2:
        margins = logits[:, 1].astype(np.float64) - logits[:, 0]
        ranked[RANKING_SCORE] = metrics.mean_reciprocal_rank(margins, gold, questions)
    return {
        **ranked,
        "accuracy": metrics.accuracy(found, gold),
        "f1": metrics.f1(found, gold, logits.shape[1]),
        "mcc": metrics.mcc(found, gold),
    }


def decode(logits: np.ndarray, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """What [N, C] logits say of each sample, JSON-ready.

    With labels (names in id order): {"label", "probability", "probabilities": {name: share}}; without, for C = 1:
    {"value"}. Raises `UserError` when a logit is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise UserError(f"sample {broken[0]}: not a finite number; the model or its precision is broken")
    if labels is None:
        return [{"value": value} for value in logits[:, 0].astype(float).tolist()]
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares = weights / weights.sum(axis=1, keepdims=True)  # [N, C]
    return [
        {"label": labels[best], "probability": row[best], "probabilities": dict(zip(labels, row, strict=True))}
        for best, row in zip(logits.argmax(axis=1).tolist(), shares.tolist(), strict=True)
    ]


def write_results(
    folder: Path | str,
    logits: np.ndarray,
    gold: np.ndarray | None,
    labels: Sequence[str] | None,
    seconds: float | None = None,
    questions: np.ndarray | None = None,
) -> dict[str, float | int]:
    """Write predictions.jsonl (one sample a line, in order) and eval.json into `folder`; returns what the latter holds.

    gold: labels [N], None where there are none: eval.json then has no score. seconds: what the model took. questions:
    as in `scores`; each line then names its own.
    """
    entries = [{"index": index, **entry} for index, entry in enumerate(decode(logits, labels))]
    if gold is not None and labels is not None:
        entries = [entry | {"gold": labels[label]} for entry, label in zip(entries, gold.tolist(), strict=True)]
    elif gold is not None:
        entries = [entry | {"gold": label} for entry, label in zip(entries, gold.astype(float).tolist(), strict=True)]
    if questions is not None:
        entries = [entry | {"qid": question} for entry, question in zip(entries, questions.tolist(), strict=True)]
    values: dict[str, float | int] = dict(scores(logits, gold, questions)) if gold is not None else {}
    values["samples"] = len(entries)
    if seconds is not None:
        values["samples_per_second"] = round(len(entries) / seconds, 2)
    write_json_lines(Path(folder) / "predictions.jsonl", entries)
    write_json(Path(folder) / "eval.json", values)
    return values
