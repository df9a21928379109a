"""Decoding of span logits against brute force over all pairs, and against the usual (transformers') procedure."""

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.tasks import span


@dataclass
class Windows:
    """The part of a feature set that decoding reads."""

    tokens: dict[str, np.ndarray]
    starts: np.ndarray
    qas_ids: list[str]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def make_windows(contexts: dict[str, str], size: int, stride: int, question_tokens: int = 4) -> Windows:
    """Windows over the words of the contexts, which overlap; each with question tokens before and one token behind."""
    begins, ends, lengths, owners = [], [], [], []
    for name, text in contexts.items():
        words, position = [], 0
        for word in text.split():
            position = text.index(word, position)
            words.append((position, position + len(word)))
            position += len(word)
        for first in range(0, max(len(words), 1), stride):
            inside = [(-1, -1)] * question_tokens + words[first : first + size] + [(-1, -1)]
            begins += [b for b, _ in inside]
            ends += [e for _, e in inside]
            lengths.append(len(inside))
            owners.append(name)
            if first + size >= len(words):
                break
    tokens = {"offset_start": np.array(begins, np.int32), "offset_end": np.array(ends, np.int32)}
    return Windows(tokens, np.cumsum([0, *lengths]), owners)


def random_case(seed: int, questions: int = 12, coarse: bool = False) -> tuple[Windows, dict, dict]:
    """Windows, contexts and padded float32 logits [N, T]; `coarse` logits have many ties."""
    generator = random.Random(seed)
    contexts = {
        f"q{i}": "  ".join(generator.choice("one three é a bb") * 2 for _ in range(generator.randint(1, 40)))
        for i in range(questions)
    }
    windows = make_windows(contexts, size=15, stride=generator.choice([5, 8, 15]))
    shape = (len(windows.qas_ids), int(windows.lengths.max()) + 3)
    numbers = np.random.default_rng(seed)
    logits = {name: numbers.normal(size=shape).astype(np.float32) for name in ("start_logits", "end_logits")}
    if coarse:
        logits = {name: np.round(array) for name, array in logits.items()}
    return windows, contexts, logits


def brute_force(windows: Windows, contexts: dict, logits: dict, n_best: int, longest: int) -> dict:
    """Every pair of tokens of every window, in plain Python; returns question -> [(score, begin, end)]."""
    found = {name: {} for name in contexts}
    for index, name in enumerate(windows.qas_ids):
        place = range(windows.starts[index], windows.starts[index + 1])
        offsets = [(int(windows.tokens["offset_start"][p]), int(windows.tokens["offset_end"][p])) for p in place]
        real = [t for t, (begin, _) in enumerate(offsets) if begin != -1]
        best_starts = sorted(real, key=lambda t: (-logits["start_logits"][index][t], t))[:n_best]
        best_ends = sorted(real, key=lambda t: (-logits["end_logits"][index][t], t))[:n_best]
        for start in real:
            for end in real:
                if start not in best_starts or end not in best_ends or not start <= end < start + longest:
                    continue
                score = float(logits["start_logits"][index][start]) + float(logits["end_logits"][index][end])
                key = (offsets[start][0], offsets[end][1])
                found[name][key] = max(score, found[name].get(key, -math.inf))
    return {
        name: sorted(((score, *key) for key, score in spans.items()), key=lambda c: (-c[0], *c[1:]))[:n_best]
        for name, spans in found.items()
    }


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("n_best", "longest"), [(20, 30), (3, 2), (1, 1), (60, 60)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_brute_force_over_all_pairs(seed: int, n_best: int, longest: int, coarse: bool) -> None:
    windows, contexts, logits = random_case(seed, coarse=coarse)
    predictions, nbest = span.decode(windows, logits, contexts, n_best, longest)
    expected = brute_force(windows, contexts, logits, n_best, longest)
    assert list(predictions) == list(nbest) == list(contexts)
    for name, candidates in expected.items():
        entries = nbest[name]
        if not candidates:  # the best start and the best end of every window were in the wrong order
            assert entries == [{"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0}]
            continue
        assert [entry["text"] for entry in entries] == [contexts[name][b:e] for _, b, e in candidates]
        assert [entry["start_logit"] + entry["end_logit"] for entry in entries] == [score for score, _, _ in candidates]
        weights = [math.exp(score - candidates[0][0]) for score, _, _ in candidates]
        assert [e["probability"] for e in entries] == pytest.approx([w / sum(weights) for w in weights], rel=1e-12)
        assert predictions[name] == entries[0]["text"]


def test_best_answer_equals_the_usual_procedure() -> None:
    """transformers' examples: the 20 best over *all* tokens, then those without an offset are skipped."""
    windows, contexts, logits = random_case(5, questions=60)
    usual = dict.fromkeys(contexts, (-math.inf, ""))
    for index, name in enumerate(windows.qas_ids):
        first, length = windows.starts[index], windows.lengths[index]
        start, end = (logits[key][index, :length] for key in ("start_logits", "end_logits"))
        offset = windows.tokens["offset_start"][first:], windows.tokens["offset_end"][first:]
        for i in np.argsort(start)[-1:-21:-1]:
            for j in np.argsort(end)[-1:-21:-1]:
                if offset[0][i] == -1 or offset[0][j] == -1 or j < i or j - i + 1 > 30:
                    continue
                text = contexts[name][offset[0][i] : offset[1][j]]
                usual[name] = max(usual[name], (float(start[i] + end[j]), text), key=lambda pair: pair[0])
    assert span.decode(windows, logits, contexts)[0] == {name: text for name, (_, text) in usual.items()}


def test_question_tokens_and_padding_cannot_be_chosen() -> None:
    windows, contexts, logits = random_case(1)
    expected = span.decode(windows, logits, contexts)
    for index, (first, length) in enumerate(zip(windows.starts, windows.lengths, strict=False)):
        outside = np.ones(logits["start_logits"].shape[1], bool)
        outside[:length] = windows.tokens["offset_start"][first : first + length] < 0
        for array in logits.values():
            array[index, outside] = np.random.default_rng(index).choice([1e30, -1e30, np.inf, np.nan], outside.sum())
    assert span.decode(windows, logits, contexts) == expected


def test_ragged_and_padded_logits_give_the_same_whatever_the_order_of_windows() -> None:
    windows, contexts, logits = random_case(2)
    expected = span.decode(windows, logits, contexts)
    ragged = {name: [r[:n] for r, n in zip(a, windows.lengths, strict=True)] for name, a in logits.items()}
    assert span.decode(windows, ragged, contexts) == expected

    order = np.random.default_rng(0).permutation(len(windows.qas_ids))
    pieces = {name: np.split(array, windows.starts[1:-1]) for name, array in windows.tokens.items()}
    shuffled = Windows(
        {name: np.concatenate([parts[i] for i in order]) for name, parts in pieces.items()},
        np.cumsum([0, *windows.lengths[order]]),
        [windows.qas_ids[i] for i in order],
    )
    assert span.decode(shuffled, {name: array[order] for name, array in logits.items()}, contexts) == expected


def test_answers_are_cut_from_the_original_text() -> None:
    contexts = {"q": "Ça  vaut\n42,5\u202f€ «net»."}
    windows = make_windows(contexts, size=9, stride=9)
    logits = {"start_logits": np.zeros((1, 10)), "end_logits": np.zeros((1, 10))}
    logits["start_logits"][0, 5] = logits["end_logits"][0, 7] = 5.0
    assert span.decode(windows, logits, contexts)[0] == {"q": "vaut\n42,5\u202f€"}


def test_question_without_any_context_token_gets_an_empty_answer() -> None:
    contexts = {"blank": "   ", "q": "word", "no window": "x"}
    windows = make_windows({"blank": "   ", "q": "word"}, size=4, stride=4)
    logits = {"start_logits": np.zeros((2, 6)), "end_logits": np.zeros((2, 6))}
    predictions, nbest = span.decode(windows, logits, contexts)
    assert predictions == {"blank": "", "q": "word", "no window": ""}
    assert [entry["probability"] for entry in nbest["blank"]] == [1.0]
    none = span.decode(Windows({k: v[:0] for k, v in windows.tokens.items()}, np.zeros(1, int), []), logits_of(0), {})
    assert none == ({}, {})


def logits_of(count: int, width: int = 6, value: float = 0.0) -> dict[str, np.ndarray]:
    return {name: np.full((count, width), value) for name in ("start_logits", "end_logits")}


@pytest.mark.parametrize(
    ("logits", "contexts", "message"),
    [
        (logits_of(1), {"q": "word", "r": "two words"}, "1 windows, but the features have 2"),
        (logits_of(2, 5), {"q": "word", "r": "two words"}, "window 0: 5 values, but the window has 6"),
        (logits_of(2, 7, np.nan), {"q": "word", "r": "two words"}, "window 0: not a finite number"),
        (logits_of(2, 7), {"q": "word"}, "'r' of the features is not in the dataset"),
        (logits_of(2, 7), {"q": "word", "r": "two"}, "question r: an offset lies behind the end"),
    ],
)
def test_what_does_not_fit_together_is_refused(logits: dict, contexts: dict, message: str) -> None:
    windows = make_windows({"q": "word", "r": "two words"}, size=4, stride=4)
    with pytest.raises(UserError, match=message):
        span.decode(windows, logits, contexts)


def test_results_are_written_and_scored(tmp_path: Path) -> None:
    contexts = {"q1": "Rome was not built", "q2": "in a day", "q3": " "}
    answers = {"q1": "was not", "q2": "day", "q3": "x"}
    qas = [{"id": name, "question": "?", "answers": [{"text": answers[name], "answer_start": 0}]} for name in contexts]
    paragraphs = [{"context": contexts[qa["id"]], "qas": [qa]} for qa in qas]
    windows = make_windows(contexts, size=5, stride=5)
    logits = {name: np.zeros((3, 10), np.float32) for name in ("start_logits", "end_logits")}
    logits["start_logits"][0, 4] = logits["end_logits"][0, 5] = 3.0  # "Rome was" for "was not"
    logits["start_logits"][1, 6] = logits["end_logits"][1, 6] = 3.0  # "day"
    predictions, nbest = span.decode(windows, logits, contexts)
    scores = span.write_results(tmp_path / "run", predictions, nbest, {"data": [{"paragraphs": paragraphs}]})
    assert scores == {"exact_match": 100 / 3, "f1": 50.0, "questions": 3, "empty_answers": 1}
    written = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "run").iterdir()}
    assert written == {"predictions.json": predictions, "nbest_predictions.json": nbest, "eval.json": scores}
    assert predictions == {"q1": "Rome was", "q2": "day", "q3": ""}


def test_ten_thousand_windows_take_seconds() -> None:
    count, length = 10_000, 200
    offsets = np.where(np.arange(length) < 15, -1, np.arange(length) * 6)
    tokens = {"offset_start": offsets, "offset_end": offsets + 5 * (offsets >= 0)}
    owners = [f"q{i // 2}" for i in range(count)]
    windows = Windows(
        {name: np.tile(array, count).astype(np.int32) for name, array in tokens.items()},
        np.arange(count + 1) * length,
        owners,
    )
    numbers = np.random.default_rng(0)
    logits = {name: numbers.normal(size=(count, 384)).astype(np.float32) for name in ("start_logits", "end_logits")}
    contexts = dict.fromkeys(owners, "x" * 6 * length)
    before = time.perf_counter()
    predictions, nbest = span.decode(windows, logits, contexts)
    assert time.perf_counter() - before < 20  # 2.5 s on the 2 cores it was written on
    assert len(predictions) == 5000
    assert all(len(entries) == 20 for entries in nbest.values())
