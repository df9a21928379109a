"""Question answering by spans: from start and end logits to answers cut out of the original text, in numpy.

The same code decodes the logits of every runtime. Shape legend: N windows, B windows of a chunk, T tokens of a window,
K best starts (or ends) of a window, C candidates (pairs of a start and an end).

A question may have several windows over its context. Of every window the K best starts are paired with the K best
ends; the pairs of all windows of the question compete by the sum of their logits (Devlin et al. 2018, section 4.2).
Only context tokens take part, those with a character offset; question tokens and padding cannot be chosen whatever
their logits. Ties are broken by position, so equal logits give equal files.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.common.errors import UserError
from models.common.files import write_json
from models.common.metrics import cmrc, squad
from models.common.packing import PER_TOKEN, PackedBatch, Samples

# What a question-answering network gives, in its order.
OUTPUTS = {"start_logits": PER_TOKEN, "end_logits": PER_TOKEN}
# google-research/bert run_squad.py and transformers' utils_qa.py have the same defaults.
DEFAULT_N_BEST_SIZE = 20
DEFAULT_MAX_ANSWER_LENGTH = 30


class Metric(NamedTuple):
    """A metric of answers: reads its dataset, scores answers (question id -> text) to it, and of those scores `printed`
    are shown and `best` says which weights are the best. Scores are in per cent."""

    load_dataset: Callable[[Path | str], dict[str, Any]]
    evaluate: Callable[[dict[str, Any], dict[str, str], str], dict[str, Any]]
    printed: tuple[str, ...]
    best: str


# By the names that --assessment_method and the manifest's task block give them.
METRICS = {
    "squad": Metric(squad.load_dataset, squad.evaluate, ("exact_match", "f1"), "f1"),
    "cmrc": Metric(cmrc.load_dataset, cmrc.evaluate, ("exact_match", "f1", "average"), "average"),
}
DEFAULT_METRIC = "squad"  # also of manifests from before there was another

CHUNK_WINDOWS = 512  # bounds the memory of the padded arrays (512 x 384 float64 = 1.5 MB each)

Logits = Mapping[str, np.ndarray | Sequence[np.ndarray]]


class Windows(Protocol):
    """What decoding needs of a feature set: ragged windows with character offsets, and whose they are."""

    tokens: Mapping[str, np.ndarray]  # "offset_start", "offset_end": int32 [sum of T], -1 where not a context token
    starts: np.ndarray  # int64 [N + 1] where each window's tokens start
    qas_ids: Sequence[str] | None  # [N]


class _Candidates(NamedTuple):
    """Possible answers, arrays [C]: question index, characters [begin, end) of its context, and the two logits."""

    question: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    start_logit: np.ndarray
    end_logit: np.ndarray

    def take(self, indices: np.ndarray) -> "_Candidates":
        return _Candidates(*(array[indices] for array in self))

    @property
    def score(self) -> np.ndarray:
        return self.start_logit + self.end_logit


def decode(
    features: Windows,
    logits: Logits,
    contexts: Mapping[str, str],
    n_best_size: int = DEFAULT_N_BEST_SIZE,
    max_answer_length: int = DEFAULT_MAX_ANSWER_LENGTH,
) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """Find the best answers of every question.

    Args:
        features: the windows, in the order of the logits.
        logits: "start_logits" and "end_logits", each [N, T] or N arrays [T]; T at least the window's tokens, what is
            behind them is ignored.
        contexts: question id -> the text that the offsets of its windows count in. All these questions get an answer.
        n_best_size: starts and ends tried per window, and answers kept per question.
        max_answer_length: longest answer, in tokens.

    Returns:
        predictions: question id -> text, in the order of `contexts`; "" if no window has a context token.
        nbest: question id -> at most n_best_size of {"text", "probability", "start_logit", "end_logit"}, best first;
            the probabilities are a softmax over these candidates.

    Raises:
        UserError: logits are missing, too short or not finite, or the windows belong to other texts than `contexts`.
    """
    identifiers = list(contexts)
    questions = _question_of_each_window(features, {name: index for index, name in enumerate(identifiers)})
    text_lengths = np.array([len(contexts[name]) for name in identifiers], np.int64)
    flat = {name: _flatten(logits, name, np.diff(features.starts)) for name in ("start_logits", "end_logits")}
    _check_offsets(features, questions, text_lengths)
    chunks = [
        _chunk_candidates(
            features, flat, questions, slice(first, first + CHUNK_WINDOWS), n_best_size, max_answer_length
        )
        for first in range(0, len(questions), CHUNK_WINDOWS)
    ]
    empty = _Candidates(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0), np.zeros(0))
    merged = _Candidates(*(np.concatenate(arrays) for arrays in zip(empty, *chunks, strict=True)))
    best = _best_per_question(merged, int(text_lengths.max(initial=0)) + 1, n_best_size)
    nbest = _as_entries(best, identifiers, contexts)
    return {name: entries[0]["text"] for name, entries in nbest.items()}, nbest


def training_inputs(samples: Samples, batch: PackedBatch, max_samples: int) -> list[np.ndarray]:
    """The inputs of `SpanTrainingNetwork` for one packed batch, in its order.

    R rows, S = max_samples: four int32 [R, T], start and end positions int32 [R, S] as indices in the row, weights
    float32 [R, S], 1 where a sample exists. A window without the answer is labelled with its first token, as in
    google-research/bert.
    """
    arrays = [batch.arrays[name] for name in ("input_ids", "sequence_ids", "token_type_ids", "position_ids")]
    for name in ("start_position", "end_position"):
        in_row = (samples.scalars[name][batch.samples] + batch.begins).astype(np.int32)
        arrays.append(batch.per_sample_grid(in_row, max_samples))
    arrays.append(batch.per_sample_grid(np.ones(len(batch.samples), np.float32), max_samples))
    return arrays


def write_results(
    folder: Path | str,
    predictions: dict[str, str],
    nbest: dict[str, list[dict[str, Any]]],
    dataset: dict[str, Any],
    source: str = "dataset",
    seconds: float | None = None,
    metric: str = DEFAULT_METRIC,
) -> dict[str, float | int]:
    """Score the answers and write predictions.json, nbest_predictions.json and eval.json into `folder`.

    dataset: the parsed SQuAD file; source: what to call it in an error; seconds: what the model took for all windows;
    metric: a name of `METRICS`.

    Returns what eval.json holds: the metric's scores, "exact_match" and "f1" in per cent among them, "questions",
    "empty_answers", the number of questions for which no window had a span, and with `seconds` given
    "questions_per_second".
    """
    scores: dict[str, float | int] = dict(METRICS[metric].evaluate(dataset, predictions, source))
    scores["questions"] = len(predictions)
    scores["empty_answers"] = sum(not text for text in predictions.values())
    if seconds is not None:
        scores["questions_per_second"] = round(len(predictions) / seconds, 2)
    folder = Path(folder)
    write_json(folder / "predictions.json", predictions)
    write_json(folder / "nbest_predictions.json", nbest)
    write_json(folder / "eval.json", scores)
    return scores


def _question_of_each_window(features: Windows, index_of: dict[str, int]) -> np.ndarray:
    """Question index of each window, int64 [N]."""
    if features.qas_ids is None:
        raise UserError("the features hold no question ids (made for training?); convert the dataset for evaluation")
    try:
        return np.array([index_of[name] for name in features.qas_ids], np.int64)
    except KeyError as error:
        raise UserError(f"question {error} of the features is not in the dataset; convert this dataset again") from None


def _flatten(logits: Logits, name: str, lengths: np.ndarray) -> np.ndarray:
    """Logits of the windows' own tokens, one window behind the other, [sum of T]."""
    rows = logits[name]
    if len(rows) != len(lengths):
        raise UserError(f"{name} of {len(rows)} windows, but the features have {len(lengths)}; is the run complete?")
    width = np.array([len(row) for row in rows], np.int64)
    if (width < lengths).any():
        first = int(np.argmax(width < lengths))
        raise UserError(f"{name}, window {first}: {width[first]} values, but the window has {lengths[first]} tokens")
    if isinstance(rows, np.ndarray):
        return rows[np.arange(rows.shape[1]) < lengths[:, None]] if rows.size else rows.reshape(-1)
    return np.concatenate([row[:length] for row, length in zip(rows, lengths, strict=True)]) if rows else np.zeros(0)


def _check_offsets(features: Windows, questions: np.ndarray, text_lengths: np.ndarray) -> None:
    window = np.repeat(np.arange(len(questions)), np.diff(features.starts))
    beyond = features.tokens["offset_end"] > text_lengths[questions[window]]
    if beyond.any():
        name = features.qas_ids[window[np.argmax(beyond)]]
        raise UserError(f"question {name}: an offset lies behind the end of its context; convert this dataset again")


def _chunk_candidates(
    features: Windows,
    flat: dict[str, np.ndarray],
    questions: np.ndarray,
    windows: slice,
    n_best_size: int,
    max_answer_length: int,
) -> _Candidates:
    """All allowed pairs of the best starts and ends of some windows."""
    starts = np.asarray(features.starts)[windows.start : windows.stop + 1]
    questions = questions[windows]
    lengths = np.diff(starts)  # [B]
    column = np.arange(lengths.max(initial=0))  # [T]
    source = starts[:-1, None] + np.minimum(column, lengths[:, None] - 1)  # [B, T] index into the flat arrays
    context = (features.tokens["offset_start"][source] >= 0) & (column < lengths[:, None])  # [B, T]
    best = {}
    for name, values in flat.items():
        # float64 sums two float32 logits without rounding, so that a score does not depend on who adds them.
        padded = values[source].astype(np.float64)
        if not np.isfinite(padded[context]).all():
            window = windows.start + int(np.argmax((~np.isfinite(padded) & context).any(axis=1)))
            raise UserError(f"{name}, window {window}: not a finite number; the model or its precision is broken")
        # Stable, so that of equal logits the earlier token comes first.
        best[name] = np.argsort(np.where(context, -padded, np.inf), axis=1, kind="stable")[:, :n_best_size]  # [B, K]
    first, last = best["start_logits"][:, :, None], best["end_logits"][:, None, :]  # [B, K, 1], [B, 1, K]
    row = np.arange(len(lengths))[:, None, None]
    allowed = context[row, first] & context[row, last] & (last >= first) & (last - first < max_answer_length)
    window, i, j = np.nonzero(allowed)  # [C]
    first = source[window, best["start_logits"][window, i]]
    last = source[window, best["end_logits"][window, j]]
    return _Candidates(
        questions[window],
        features.tokens["offset_start"][first].astype(np.int64),
        features.tokens["offset_end"][last].astype(np.int64),
        flat["start_logits"][first].astype(np.float64),
        flat["end_logits"][last].astype(np.float64),
    )


def _best_per_question(candidates: _Candidates, text_size: int, n_best_size: int) -> _Candidates:
    """The best of each question, by question, then by falling score, then by position; no span of text twice."""
    ordered = candidates.take(
        np.lexsort((candidates.end, candidates.begin, -candidates.score, candidates.question))
    )  # lexsort takes its last key first
    span = (ordered.question * text_size + ordered.begin) * text_size + ordered.end
    # Overlapping windows give the same span several times. `unique` points at the first, which is the best, of each.
    kept = ordered.take(np.sort(np.unique(span, return_index=True)[1]))
    rank = np.arange(len(kept.question)) - np.searchsorted(kept.question, kept.question)
    return kept.take(rank < n_best_size)


def _as_entries(best: _Candidates, identifiers: list[str], contexts: Mapping[str, str]) -> dict[str, list[dict]]:
    """The entries of nbest_predictions.json; a question with no candidate gets one empty answer."""
    score = best.score
    weight = np.exp(score - score[np.searchsorted(best.question, best.question)])  # the first one is the best
    total = np.bincount(best.question, weight, minlength=len(identifiers))
    probability = weight / total[best.question]
    nbest: dict[str, list[dict]] = {name: [] for name in identifiers}
    columns = (best.question, best.begin, best.end, probability, best.start_logit, best.end_logit)
    for question, begin, end, share, start_logit, end_logit in zip(*(c.tolist() for c in columns), strict=True):
        name = identifiers[question]
        text = contexts[name][begin:end]
        nbest[name].append({"text": text, "probability": share, "start_logit": start_logit, "end_logit": end_logit})
    for entries in nbest.values():
        if not entries:
            entries.append({"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0})
    return nbest
