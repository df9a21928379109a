"""Where a run's labels come from, that all sources agree, and that no id lies beyond them; no network."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_tools.feature_store import FeatureSet, load_features
from models.common.errors import UserError
from models.common.export.manifest import Manifest
from models.common.finetune.deployments import ClassificationDeployment, TaggingDeployment
from models.common.finetune.labels import agreed_labels, labels_of_weights
from models.common.finetune.offline import OfflineClassification, OfflineTagging
from models.common.finetune.tagging import PARTS, TaggingConfig, check_parts
from models.common.weights.names import CLASSIFIER, TAGGER
from models.common.weights.reading import Checkpoint
from tests.record_files import write_foreign

NAMES, TAGS = ("a", "b", "c"), ("O", "B-x", "I-x")
SETTINGS = {"max_seq_length": 8, "unit": "word"}


def features(**info: object) -> FeatureSet:
    """Two samples of three and four tokens."""
    tokens = {"input_ids": np.arange(1, 8, dtype=np.int32), "token_type_ids": np.zeros(7, np.int32)}
    return FeatureSet(tokens, np.array([0, 3, 7]), {}, None, info)


def weights(labels: tuple[str, ...] | None, head: str = CLASSIFIER, count: int = 3, more: tuple[str, ...] = ()):
    """A checkpoint, as far as its labels go."""
    tensors = {f"{head}.weight": np.zeros((count, 4), np.float32)} | dict.fromkeys(more)
    return Checkpoint("test", Path("w.bin"), None, tensors, None, None, [], labels)


def agree(given: FeatureSet, known=None, label_file=None, num_class=None, ids=None, as_tags=False):
    ids = None if ids is None else np.array(ids, np.int32)
    return agreed_labels(known, given, "dev", label_file, num_class, ids, as_tags)


def test_names_come_from_whoever_has_them(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a\nb\nc\n")
    assert agree(features(labels=list(NAMES)), num_class=3, ids=[0, 2]) == NAMES
    assert agree(features(), label_file=str(file), num_class=3) == NAMES
    assert agree(features(), known=NAMES, num_class=3, ids=[2]) == NAMES  # a number is no name of its own
    assert agree(features(), num_class=2, ids=[1]) == ("0", "1")
    assert agree(features(labels=["O", "B_x", "I_x"]), known=TAGS, as_tags=True) == TAGS
    file.write_text("x\n")  # of types
    assert agree(features(), known=TAGS, label_file=str(file), as_tags=True) == TAGS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"known": NAMES, "ids": [0, 3, 5, 1]}, r"^dev: label id 3, but there are 3 labels, .*\(2 of 4 are others\)"),
        ({"num_class": 2, "ids": [0, 2]}, "^dev: label id 2, but there are 2 labels"),
        ({"known": NAMES, "ids": [-1]}, "^dev: label id -1"),
        ({"known": TAGS, "ids": [3], "as_tags": True}, "^dev: label id 3"),
        ({"known": NAMES, "num_class": 4}, "^dev: has 3 labels, --num_class says 4"),
        ({}, "give --label_file_path or --num_class$"),
        ({"num_class": 21, "as_tags": True}, "give --label_file_path$"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        agree(features(), **arguments)


def test_other_labels_than_the_runs_are_refused():
    with pytest.raises(UserError, match=r"^dev: other labels than those of the run \(c, d\)"):
        agree(features(labels=["a", "b", "d"]), known=NAMES)
    with pytest.raises(UserError, match="the same ones in another order"):
        agree(features(labels=["b", "a", "c"]), known=NAMES)


# --- of weights ------------------------------------------------------------------------------------------------------


def test_tags_of_weights_are_spelled_as_everywhere_and_invented_names_are_none():
    assert labels_of_weights(weights(("O", "B_x", "I_x"), TAGGER), as_tags=True) == TAGS
    assert labels_of_weights(weights(("LABEL_0", "LABEL_1", "LABEL_2"))) is None
    assert labels_of_weights(weights(("LABEL_0", "LABEL_1", "LABEL_2"), TAGGER), as_tags=True) is None
    assert labels_of_weights(weights(("LABEL_1", "LABEL_0"), count=2)) == ("LABEL_1", "LABEL_0")
    with pytest.raises(UserError, match=r"w\.bin, id2label: 7 labels, the model has 3"):
        labels_of_weights(weights(NAMES, TAGGER), as_tags=True)  # a list without O is one of types


def test_a_deployment_takes_the_names_of_the_weights_or_of_the_file(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "tags.txt").write_text("O\nB_x\nI_x\n")
    named, tags = str(tmp_path / "labels.txt"), str(tmp_path / "tags.txt")
    invented = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert ClassificationDeployment(weights(invented), SETTINGS, named).labels == NAMES
    assert TaggingDeployment(weights(invented, TAGGER), SETTINGS, tags).labels == TAGS
    deployment = TaggingDeployment(weights(("O", "B_x", "I_x"), TAGGER), SETTINGS, None)
    assert deployment.labels == TAGS and deployment.task["scheme"] == "BIO"
    for checkpoint, file, message in (
        (weights(invented), None, r"w\.bin: nothing names its 3 labels; give --label_file_path"),
        (weights(NAMES), named, "names its labels itself; leave --label_file_path out"),
        (weights(None, count=4), named, r"labels\.txt: 3 labels, the model has 4"),
        (weights(("LABEL_0",), count=1), named, "gives a number, which has no label"),
    ):
        with pytest.raises(UserError, match=message):
            ClassificationDeployment(checkpoint, SETTINGS, file)


@pytest.mark.parametrize(("flag", "tensor"), PARTS.items())
def test_parts_of_the_head_are_asked_for_by_their_flag(flag, tensor):
    with pytest.raises(UserError, match=f"has {tensor}; give --{flag} true"):
        check_parts(TaggingConfig(), weights(TAGS, TAGGER, more=(tensor,)))
    with pytest.raises(UserError, match=f"has no {tensor}; give --{flag} false"):
        check_parts(TaggingConfig(**{flag: True}), weights(TAGS, TAGGER))
    check_parts(TaggingConfig(**{flag: True}), weights(TAGS, TAGGER, more=(tensor,)))
    check_parts(TaggingConfig(**{flag: True}, do_train=True), weights(None, TAGGER))


# --- offline ---------------------------------------------------------------------------------------------------------


def manifest(task: str, labels: tuple[str, ...] | None) -> Manifest:
    """A manifest, as far as it is asked here."""
    tokenizer = SimpleNamespace(sha256="", lower_case=True)
    model = SimpleNamespace(config={"vocab_size": 100})
    task = {"name": task, "max_seq_length": 8}
    return SimpleNamespace(task=task, labels=labels, tokenizer=tokenizer, model=model)


CLASSES = {"label": np.array([0, 2], np.int32)}
NUMBERS = {"label": np.array([0.5, 2], np.float32)}
TAG_IDS = {"tag_id": np.array([0, 1, 2, 0, 0, 1, 0], np.int32)}


@pytest.mark.parametrize(
    ("kind", "labels", "given", "message"),
    [
        (OfflineClassification, NAMES, CLASSES, None),
        (OfflineClassification, None, NUMBERS, None),
        (OfflineTagging, TAGS, TAG_IDS, None),
        (OfflineTagging, TAGS, None, None),
        (OfflineClassification, NAMES, NUMBERS, "made with numbers for labels, the model gives classes"),
        (OfflineClassification, None, CLASSES, "made with classes for labels, the model gives a number"),
        (OfflineClassification, ("a", "b"), CLASSES, "label id 2, but there are 2 labels"),
        (OfflineClassification, NAMES, TAG_IDS, "features for tagging, the model is for classification"),
        (OfflineTagging, TAGS, NUMBERS, "features for regression, the model is for tagging"),
        (OfflineTagging, TAGS[:2], TAG_IDS, "label id 2, but there are 2 labels"),
    ],
)
def test_offline_features_must_be_those_of_the_model(tmp_path, kind, labels, given, message):
    path = write_foreign(tmp_path / "dev.tfrecord", features(), given)
    task = kind(manifest("tagging" if kind is OfflineTagging else "classification", labels), tmp_path, path)
    if message is None:
        np.testing.assert_array_equal(task.prepare(tmp_path).lengths, load_features(path).lengths)
        return
    for step in (task.prepare, task.features):  # before the program, and behind it
        with pytest.raises(UserError, match=f"^{path}: {message}"):
            step(tmp_path)
