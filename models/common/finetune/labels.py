"""Names of the classes: from the features' sidecar, from a file, from the weights; all that are known must agree."""

from collections.abc import Sequence

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.labels import Labels, read_labels, tag_set
from models.common.errors import UserError
from models.common.weights.names import label_count
from models.common.weights.reading import Checkpoint


def labels_of_weights(checkpoint: Checkpoint, as_tags: bool = False) -> tuple[str, ...] | None:
    """Names in id order that the weights bring; None where they have none, or transformers' own LABEL_0, LABEL_1, ...

    as_tags: the labels are tags, and spelled as `models.common.tagging` does.
    """
    names = checkpoint.labels
    if names is None or names == tuple(f"LABEL_{index}" for index in range(len(names))):
        return None
    names = _spelled(names, f"{checkpoint.file}, id2label", as_tags)
    check_label_count(names, checkpoint, f"{checkpoint.file}, id2label")  # a list without O is one of entity types
    return names


def labels_of_file(path: str, as_tags: bool = False) -> tuple[str, ...]:
    """Names in id order of a label file; as_tags as above, and the file may list entity types instead."""
    labels = read_labels(path)
    return tag_set(labels, None).names if as_tags else labels.names


def labels_of_model(checkpoint: Checkpoint, label_file: str | None, as_tags: bool = False) -> tuple[str, ...]:
    """Names in id order of the classes of fine-tuned weights, which either they or the file must tell."""
    known = labels_of_weights(checkpoint, as_tags)
    if known is None and label_file is None:
        count = label_count(checkpoint.tensors)
        raise UserError(f"{checkpoint.file}: nothing names its {count} labels; give --label_file_path")
    if known is None:
        known = labels_of_file(label_file, as_tags)
        check_label_count(known, checkpoint, label_file)
    elif label_file is not None:
        raise UserError(f"{checkpoint.file}: names its labels itself; leave --label_file_path out")
    return known


def agreed_labels(
    known: tuple[str, ...] | None,
    features: FeatureSet,
    path: str,
    label_file: str | None,
    num_class: int | None,
    ids: np.ndarray | None,
    as_tags: bool = False,
) -> tuple[str, ...]:
    """Names in id order of a run's classes, after one more file of features.

    known: what other files or the weights have named; ids: all labels that occur in `features`. Features that do not
    name their labels (record files made elsewhere) take the names of `label_file`, else those known, else plain numbers
    up to `num_class`. Raises `UserError` where these contradict each other, when nobody names the labels, and for an id
    beyond the names.
    """
    stated = features.info.get("labels")
    if stated is not None and label_file is not None:
        raise UserError(f"{path}: names its labels itself; leave --label_file_path out")
    given = labels_of_file(label_file, as_tags) if label_file else None
    if stated is not None:
        given = _spelled(tuple(stated), path, as_tags)
    if None not in (known, given) and known != given:
        differing = sorted({*known} ^ {*given}) or ["the same ones in another order"]
        raise UserError(
            f"{path}: other labels than those of the run ({', '.join(differing[:5])}); convert it with "
            "--label_file_path naming the training features"
        )
    names = given or known
    if names is None and num_class is not None and not as_tags:
        names = tuple(map(str, range(num_class)))
    if names is None:
        # A number of tags says nothing of their scheme.
        advice = "--label_file_path" if as_tags else "--label_file_path or --num_class"
        raise UserError(f"{path}: does not name its labels; give {advice}")
    if num_class not in (None, len(names)):
        raise UserError(f"{path}: has {len(names)} labels, --num_class says {num_class}")
    check_label_ids(ids, names, path)
    return names


def check_label_ids(ids: np.ndarray | None, names: Sequence[str], path: object) -> None:
    """Raise a `UserError` when an id of the features of `path` is none of the names'."""
    wrong = ids[(ids < 0) | (ids >= len(names))] if ids is not None else ()
    if len(wrong):
        raise UserError(
            f"{path}: label id {wrong[0]}, but there are {len(names)} labels, with the ids 0 to {len(names) - 1} "
            f"({len(wrong)} of {len(ids)} are others); give the features these labels belong to"
        )


def check_label_count(names: Sequence[str], checkpoint: Checkpoint, origin: object) -> None:
    """Raise a `UserError` when `origin` names more or fewer labels than fine-tuned weights have."""
    count = label_count(checkpoint.tensors)
    if len(names) != count:
        raise UserError(f"{origin}: {len(names)} labels, the model has {count}")


def scheme_of(tags: Sequence[str]) -> str:
    """The scheme (`models.common.tagging`) of a model's tags; a `UserError` when they are none."""
    return tag_set(Labels(tuple(tags), "the model's labels"), None).scheme


def _spelled(names: tuple[str, ...], origin: str, as_tags: bool) -> tuple[str, ...]:
    return tag_set(Labels(names, origin), None).names if as_tags else names
