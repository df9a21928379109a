"""Entity scores against seqeval in strict mode, token scores against scikit-learn, to the last digit, and by hand."""

import json
import random
import warnings
from itertools import chain, pairwise

import pytest
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2, IOBES
from sklearn.metrics import f1_score

from models.common.errors import UserError
from models.common.metrics.entities import class_blind_token_f1, score_entities, token_macro_f1
from models.common.tagging import Entity, check_tags, decode_tags, encode_entities, tag_names

SEQEVAL_SCHEMES = {"BIO": IOB2, "BIOES": IOBES}
TYPES = ["PER", "LOC", "ORG", "address", "book", "company", "game", "movie", "scene", "name", "position"]

Tags = list[list[str]]


def random_case(seed: int, scheme: str) -> tuple[Tags, Tags]:
    """Valid gold tags, and predictions made of them by errors of every kind: broken tags too, types missing."""
    generator = random.Random(seed)
    types = TYPES[: generator.randint(1, len(TYPES))]
    noise, names = generator.choice([0.02, 0.2, 0.7]), tag_names(types, scheme)
    gold, predicted = [], []
    for _ in range(generator.randint(1, 60)):
        length = generator.randint(1, 30)
        cuts = sorted(generator.sample(range(length + 1), generator.randint(0, min(length + 1, 8))))
        spans = [pair for pair in pairwise(cuts) if generator.random() < 0.6]
        kinds = types[: max(1, len(types) - seed % 3)]  # some types occur in predictions only
        tags = encode_entities([Entity(*span, generator.choice(kinds)) for span in spans], length, scheme)
        gold.append(tags)
        predicted.append([generator.choice(names) if generator.random() < noise else tag for tag in tags])
    return gold, predicted


def ours(gold: Tags, predicted: Tags, scheme: str) -> dict:
    return score_entities([decode_tags(t, scheme) for t in gold], [decode_tags(t, scheme) for t in predicted])


def seqeval_scores(gold: Tags, predicted: Tags, scheme: str, average: str | None) -> tuple:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets quotients without a denominator to 0
        return precision_recall_fscore_support(gold, predicted, average=average, scheme=SEQEVAL_SCHEMES[scheme])


@pytest.mark.parametrize("scheme", SEQEVAL_SCHEMES)
def test_entity_scores_equal_seqeval_strict(scheme: str) -> None:
    broken = 0
    for seed in range(60):
        gold, predicted = random_case(seed, scheme)
        scores = ours(gold, predicted, scheme)
        figures = tuple(scores[name] for name in ("precision", "recall", "f1", "support"))
        assert figures == seqeval_scores(gold, predicted, scheme, "micro"), seed
        if not scores["types"]:
            continue  # no entity on either side: seqeval's mean over nothing is nan
        assert scores["macro_f1"] == seqeval_scores(gold, predicted, scheme, "macro")[2], seed
        by_type = zip(*seqeval_scores(gold, predicted, scheme, None), strict=True)
        assert [tuple(row.values()) for row in scores["types"].values()] == list(by_type), seed
        assert list(scores["types"]) == sorted(scores["types"])
        broken += any(check_tags(tags, scheme) for tags in predicted)
    assert broken > 30


def test_scores_by_hand() -> None:
    gold = [[Entity(0, 2, "PER"), Entity(3, 5, "LOC")], [], [Entity(0, 1, "LOC")]]
    predicted = [[Entity(0, 2, "PER"), Entity(3, 4, "LOC")], [Entity(1, 2, "ORG")], [Entity(0, 1, "LOC")]]
    assert score_entities(gold, predicted) == {
        "precision": 2 / 4,
        "recall": 2 / 3,
        "f1": 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3),
        "support": 3,
        "macro_f1": 0.5,
        "types": {
            "LOC": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
            "ORG": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
            "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        },
    }


def test_scores_can_be_written_as_json() -> None:
    scores = ours(*random_case(1, "BIO"), "BIO")
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_an_entity_named_twice_counts_once() -> None:
    once, twice = [[Entity(0, 1, "a")]], [[Entity(0, 1, "a"), Entity(0, 1, "a")]]
    assert score_entities(twice, once) == score_entities(once, twice) == score_entities(once, once)


def test_nothing_to_find_and_nothing_found_is_0() -> None:
    assert score_entities([[], []], [[], []]) == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
        "macro_f1": 0.0,
        "types": {},
    }


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "BMES"])
def test_token_scores_equal_scikit_learn(scheme: str) -> None:
    for seed in range(40):
        gold, predicted = random_case(seed, scheme)
        wanted, found = list(chain(*gold)), list(chain(*predicted))
        assert token_macro_f1(gold, predicted) == f1_score(wanted, found, average="macro"), seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no entity at all: set to 0
            blind = f1_score([tag != "O" for tag in wanted], [tag != "O" for tag in found])
        assert class_blind_token_f1(gold, predicted) == blind, seed


def test_class_blind_means_class_blind() -> None:
    """What the original's BF1 cannot see: every type is wrong, and every border."""
    gold, predicted = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-LOC", "B-ORG", "O", "I-PER"]]
    assert class_blind_token_f1(gold, predicted) == 1.0
    assert token_macro_f1(gold, predicted) == 0.2  # only O is right, of 5 tags
    assert ours(gold, predicted, "BIO")["f1"] == 0.0
    assert class_blind_token_f1([["O", "O"]], [["O", "O"]]) == 0.0


def test_what_cannot_be_scored_is_refused() -> None:
    for score in (score_entities, class_blind_token_f1, token_macro_f1):
        with pytest.raises(UserError, match="no sentences"):
            score([], [])
        with pytest.raises(ValueError, match="1 gold sentences, 2 predicted"):
            score([[]], [[], []])
    for score in (class_blind_token_f1, token_macro_f1):
        with pytest.raises(ValueError, match="sentence 1: 2 gold tags, 1 predicted"):
            score([["O"], ["O", "O"]], [["O"], ["O"]])
        with pytest.raises(UserError, match="no samples"):
            score([[]], [[]])
