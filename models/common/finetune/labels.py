"""Names of the classes: from the features' sidecar, from a file, from the weights; all that are known must agree."""

from collections.abc import Sequence

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.labels import Labels, read_labels, tag_set
from models.common.errors import UserError


def labels_of(
    features: FeatureSet,
    path: str,
    label_file: str | None,
    num_class: int | None,
    ids: np.ndarray | None,
    as_tags: bool = False,
) -> tuple[str, ...] | None:
    """Names in id order of the classes that `features` of `path` are labelled with; None where nothing tells them.

    Features that do not name their labels (record files made elsewhere) take the names of `label_file`, else plain
    numbers up to `num_class`. ids: all labels that occur. as_tags: the labels are tags, and spelled as
    `models.common.tagging` does; a label file may list entity types instead. Raises `UserError` where these contradict
    each other.
    """
    stated = features.info.get("labels")
    if stated is not None and label_file is not None:
        raise UserError(f"{path}: names its labels itself; leave --label_file_path out")
    names = tuple(stated) if stated is not None else read_labels(label_file).names if label_file else None
    if names is not None and as_tags:
        names = tag_set(Labels(names, label_file or path), None).names
    if names is None and num_class is not None and not as_tags:
        names = tuple(map(str, range(num_class)))
    if names is None:
        return None
    if num_class is not None and len(names) != num_class:
        raise UserError(f"{path}: has {len(names)} labels, --num_class says {num_class}")
    if ids is not None and len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(names):
        raise UserError(f"{path}: label ids {ids.min()}..{ids.max()}, there are {len(names)} labels")
    return names


def scheme_of(tags: Sequence[str]) -> str:
    """The scheme (`models.common.tagging`) of a model's tags; a `UserError` when they are none."""
    return tag_set(Labels(tuple(tags), "the model's labels"), None).scheme


def check_same_labels(known: tuple[str, ...] | None, given: tuple[str, ...] | None, path: str) -> tuple[str, ...]:
    """The labels of a run after one more file; a `UserError` when it has others, or when nobody has named them yet."""
    if known is None and given is None:
        raise UserError(f"{path}: does not name its labels; give --label_file_path or --num_class")
    if known is not None and given is not None and known != given:
        differing = sorted({*known} ^ {*given}) or ["the same ones in another order"]
        raise UserError(
            f"{path}: other labels than those of the run ({', '.join(differing[:5])}); convert it with "
            "--label_file_path naming the training features"
        )
    return known or given
