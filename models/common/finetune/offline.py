"""Before and behind a runtime that reads and writes files: data -> samples, results -> predictions and their score.

All settings (lengths, vocabulary, letter case, labels) come from the exported model's manifest, so that they cannot
disagree with it. Decoding and scoring are the same code as for every other runtime.
"""

import argparse
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import SIDECAR, FeatureSet, load_features
from data_tools.features.span import STRIDE_MEANINGS, SpanOptions
from data_tools.readers.squad import read_contexts
from models.common.errors import UserError
from models.common.export.manifest import Data, Manifest
from models.common.files import read_json, sha256_of
from models.common.finetune.labels import check_label_ids
from models.common.finetune.tagging import with_words
from models.common.runtime.offline import task_setting
from models.common.tasks import classification, span, tagging

FEATURES = "features"
Outputs = Mapping[str, np.ndarray]
# What `load_features` is told of record files made elsewhere: their schema, and their format.
Foreign = tuple[Path | None, str | None]
NOT_FOREIGN: Foreign = (None, None)


class OfflineTask(ABC):
    """One exported model and the data it is asked about."""

    flag: ClassVar[str]  # how the commands call the data
    printed: tuple[str, ...]  # scores that postprocess prints
    headlines: tuple[str, ...]  # the score to compare models by: the first of them that there is
    percent: ClassVar[float] = 100.0  # what it is multiplied with

    def __init__(self, manifest: Manifest, folder: Path, data: Path, foreign: Foreign = NOT_FOREIGN) -> None:
        """folder: of the manifest, with the vocabulary; foreign: see there. Raises `UserError`."""
        self.manifest, self.folder, self.data, self.foreign = manifest, folder, data, foreign

    def headline(self, scores: Mapping[str, Any]) -> tuple[str, float] | None:
        """(name, value in per cent) of the score to compare models by; None without one."""
        name = next((name for name in self.headlines if name in scores), None)
        return None if name is None else (name, self.percent * float(scores[name]))

    @abstractmethod
    def prepare(self, target: Path) -> FeatureSet:
        """The samples to run; `target` is the folder that preprocess writes to."""

    @abstractmethod
    def features(self, target: Path) -> FeatureSet:
        """The samples that were run, checked to be those of this model and data."""

    @abstractmethod
    def score(self, features: FeatureSet, outputs: Outputs, folder: Path, seconds: float | None) -> dict[str, Any]:
        """Decode, score, write predictions and eval.json into `folder`; returns what the latter holds."""


class OfflineSpan(OfflineTask):
    """Question answering; the data is a SQuAD JSON, its windows are kept in `features/` for postprocess."""

    flag = "eval_json_path"
    percent = 1.0

    def __init__(self, manifest: Manifest, folder: Path, data: Path, foreign: Foreign = NOT_FOREIGN) -> None:
        """See `OfflineTask`. Raises `UserError` for a manifest whose metric is unknown."""
        super().__init__(manifest, folder, data, foreign)
        if foreign != NOT_FOREIGN:
            raise UserError(f"{data}: questions are JSON; leave --schema_file_path and --dataset_format out")
        self.metric = metric_of(manifest)
        metric = span.METRICS[self.metric]
        self.printed, self.headlines = metric.printed, (metric.best,)

    def prepare(self, target: Path) -> FeatureSet:
        """See `OfflineTask`."""
        options = SpanOptions(
            max_seq_length=task_setting(self.manifest, "max_seq_length"),
            doc_stride=task_setting(self.manifest, "doc_stride"),
            max_query_length=task_setting(self.manifest, "max_query_length"),
            stride_is=self._stride_meaning(),
        )
        tokenizer = self.manifest.tokenizer
        convert_squad(SquadConversion(
            input_file=self.data, vocab_file=self.folder / tokenizer.file, output_dir=target / FEATURES,
            is_training=False, do_lower_case=tokenizer.lower_case, span=options, dataset_format="numpy", overwrite=True,
        ))  # fmt: skip
        return load_features(target / FEATURES)

    def features(self, target: Path) -> FeatureSet:
        """See `OfflineTask`."""
        features = load_features(target / FEATURES)
        problems = [f"made with {problem}" for problem in misfits(features, self.manifest)]
        if features.info.get("source", {}).get("sha256") != sha256_of(self.data):
            problems.append(f"made from another file than {self.data}")
        numbers = ("max_seq_length", "doc_stride", "max_query_length")
        wanted: dict[str, Any] = {name: task_setting(self.manifest, name) for name in numbers}
        wanted["stride_is"] = self._stride_meaning()
        problems += [
            f"made with {name} {features.info.get(name)}, the model's is {value}"
            for name, value in wanted.items()
            if features.info.get(name) != value
        ]
        if problems:
            raise UserError(f"{target}: {'; '.join(problems)}; preprocess again")
        return features

    def score(self, features: FeatureSet, outputs: Outputs, folder: Path, seconds: float | None) -> dict[str, Any]:
        """See `OfflineTask`."""
        sizes = [task_setting(self.manifest, name) for name in ("n_best_size", "max_answer_length")]
        predictions, nbest = span.decode(features, outputs, read_contexts(self.data), *sizes)
        dataset = span.METRICS[self.metric].load_dataset(self.data)
        return span.write_results(folder, predictions, nbest, dataset, str(self.data), seconds, self.metric)

    def _stride_meaning(self) -> str:
        meaning = self.manifest.task.get("stride_is")
        if meaning not in STRIDE_MEANINGS:
            raise UserError(f"manifest, task.stride_is: expected one of {', '.join(STRIDE_MEANINGS)}, got {meaning!r}")
        return meaning


def metric_of(manifest: Manifest) -> str:
    """What scores the answers of a question answering model: a name of `span.METRICS`."""
    name = manifest.task.get("assessment_method", span.DEFAULT_METRIC)
    if name not in span.METRICS:
        known = ", ".join(span.METRICS)
        raise UserError(f"manifest, task.assessment_method: expected one of {known}, got {name!r}")
    return name


class OfflineFeatures(OfflineTask):
    """A task whose data are features written by data_tools.convert."""

    flag = "eval_data_file_path"
    tasks: ClassVar[tuple[str, ...]]  # of features that will do

    @abstractmethod
    def gold(self, features: FeatureSet) -> np.ndarray | None:
        """All labels of the features, flat: ids, or numbers; None where they have none."""

    def prepare(self, target: Path) -> FeatureSet:  # noqa: ARG002 (only questions are converted on the way)
        """See `OfflineTask`."""
        features = load_features(self.data, *self.foreign)
        if features.info.get("task", self.tasks[0]) not in self.tasks:
            raise UserError(
                f"{self.data}: features for {features.info['task']}, the model is for {self.manifest.task['name']}; "
                "convert the data for this model"
            )
        gold, problems = self.gold(features), misfits(features, self.manifest)
        labels = features.info.get("labels")
        if labels is not None and tuple(labels) != self.manifest.labels:
            problems.append("other labels than the model's")
        numbers = self.manifest.labels is None
        if gold is not None and (gold.dtype.kind == "f") != numbers:
            problems.append(f"{'classes' if numbers else 'numbers'} for labels, the model gives "
                            f"{'a number' if numbers else 'classes'}")  # fmt: skip
        refuse(self.data, problems)
        if not numbers:
            check_label_ids(gold, self.manifest.labels, self.data)
        return features

    def features(self, target: Path) -> FeatureSet:
        """See `OfflineTask`."""
        return self.prepare(target)


def misfits(features: FeatureSet, manifest: Manifest) -> list[str]:
    """With what features were made that the model cannot read: another vocabulary, letter case, length.

    Features that no sidecar describes are only checked for what their numbers show.
    """
    made, tokenizer, problems = features.info.get("tokenizer"), manifest.tokenizer, []
    if made and made["sha256"] != tokenizer.sha256:
        problems.append("another vocabulary than the model's")
    if made and made["lower_case"] != tokenizer.lower_case:
        problems.append(f"do_lower_case {made['lower_case']}, the model's is {tokenizer.lower_case}")
    if int(features.tokens["input_ids"].max()) >= manifest.model.config["vocab_size"]:
        problems.append(f"a token id beyond the model's {manifest.model.config['vocab_size']}")
    if int(features.lengths.max()) > task_setting(manifest, "max_seq_length"):
        problems.append(f"samples of {features.lengths.max()} tokens, too long for the model")
    return problems


def refuse(data: Path, problems: Sequence[str]) -> None:
    """Raise a `UserError` where features have any."""
    if problems:
        raise UserError(f"{data}: made with {'; with '.join(problems)}; convert the data for this model")


def known_data(data: Path) -> Data:
    """Data as a manifest names them: by the bytes of a file, of what describes a folder, or of all its files."""
    if data.is_dir() and not (data / SIDECAR).is_file():
        sums = "".join(f"{file.name} {sha256_of(file)}\n" for file in sorted(data.iterdir()) if file.is_file())
        return Data(data.name, hashlib.sha256(sums.encode()).hexdigest())
    return Data(data.name, sha256_of(data / SIDECAR if data.is_dir() else data))


class OfflineClassification(OfflineFeatures):
    """Classes or numbers of texts."""

    printed = (*classification.CLASS_SCORES, *classification.REGRESSION_SCORES)
    # Few candidates are right, so that accuracy hardly tells how well they are ranked.
    headlines = (classification.RANKING_SCORE, "accuracy", "spearman_correlation")
    tasks = classification.FEATURES

    def gold(self, features: FeatureSet) -> np.ndarray | None:
        """See `OfflineFeatures`."""
        return features.scalars.get("label")

    def score(self, features: FeatureSet, outputs: Outputs, folder: Path, seconds: float | None) -> dict[str, Any]:
        """See `OfflineTask`."""
        logits, labels = np.stack(outputs["logits"]), self.manifest.labels
        questions = features.scalars.get("qid")
        return classification.write_results(folder, logits, self.gold(features), labels, seconds, questions)


class OfflineTagging(OfflineFeatures):
    """Entities in sentences."""

    printed = ("precision", "recall", "f1")
    headlines = ("f1",)
    tasks = ("tagging",)

    def gold(self, features: FeatureSet) -> np.ndarray | None:
        """See `OfflineFeatures`."""
        return features.tokens.get("tag_id")

    def prepare(self, target: Path) -> FeatureSet:
        """See `OfflineTask`."""
        return with_words(super().prepare(target))

    def score(self, features: FeatureSet, outputs: Outputs, folder: Path, seconds: float | None) -> dict[str, Any]:
        """See `OfflineTask`."""
        names, scheme = self.manifest.labels, str(self.manifest.task.get("scheme"))
        ids = [values[:length] for values, length in zip(tagging.tag_ids_of(outputs), features.lengths, strict=True)]
        found, gold = tagging.decode(features, ids, names, scheme), tagging.gold_ids_of(features)
        wanted = None if gold is None else tagging.decode(features, gold, names, scheme)
        return tagging.write_results(folder, found, wanted, seconds)


OFFLINE_TASKS: dict[str, type[OfflineTask]] = {
    "span": OfflineSpan, "classification": OfflineClassification, "tagging": OfflineTagging,
}  # fmt: skip
# Flag -> which data it names.
DATA_FLAGS = {
    OfflineSpan.flag: "question answering: SQuAD's JSON layout",
    OfflineFeatures.flag: "the other tasks: features of data_tools.convert",
}


def data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which data a model is asked about."""
    for flag, what in DATA_FLAGS.items():
        parser.add_argument(f"--{flag}", type=Path, help=what)


def given_data(args: argparse.Namespace) -> dict[str, Path]:
    """Flag -> data, of the flags of `data_flags` that were given."""
    return {flag: data for flag in DATA_FLAGS if (data := getattr(args, flag)) is not None}


def given_task(args: argparse.Namespace, manifest: Manifest, path: Path, foreign: Foreign = NOT_FOREIGN) -> OfflineTask:
    """`offline_task` with the data that the flags name."""
    return offline_task(manifest, path, given_data(args), foreign)


def offline_task(
    manifest: Manifest, path: Path, given: Mapping[str, Path], foreign: Foreign = NOT_FOREIGN
) -> OfflineTask:
    """The task of the manifest at `path`; `given`: flag -> data. Raises `UserError` for the wrong flag or model."""
    kind = OFFLINE_TASKS.get(manifest.task["name"])
    if kind is None or manifest.tokenizer is None:
        raise UserError(f"{path}: not a model with a vocabulary for {', '.join(OFFLINE_TASKS)}; nothing to do for it")
    wrong = [flag for flag in given if flag != kind.flag]
    if wrong or kind.flag not in given:
        others = "".join(f", not --{flag}" for flag in wrong)
        raise UserError(f"{path}: a {manifest.task['name']} model takes --{kind.flag}{others}")
    return kind(manifest, path if path.is_dir() else path.parent, given[kind.flag], foreign)


def read_seconds(path: Path) -> float | None:
    """What the C++ program took for all samples, with reading and writing; None where it left no timing."""
    if not path.is_file():
        return None
    timing = read_json(path)
    seconds = timing.get("total_seconds") if isinstance(timing, dict) else None
    if not isinstance(seconds, (int, float)):
        raise UserError(f"{path}: has no total_seconds; run the inference again")
    return float(seconds)
