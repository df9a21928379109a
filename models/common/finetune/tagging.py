"""Named entity recognition: CLUENER, MSRA, and files like them; linear, CRF and BiLSTM heads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.readers.tagging import UNITS
from models.common.config import option
from models.common.errors import UserError
from models.common.files import sha256_of
from models.common.finetune.clue_benchmark import CLUE_PREDICTIONS, ClueBenchmark
from models.common.finetune.labels import (
    agreed_labels,
    check_label_count,
    labels_of_model,
    labels_of_weights,
    scheme_of,
)
from models.common.finetune.networks import Networks
from models.common.finetune.settings import FREE_TO_CHANGE, FineTuneConfig
from models.common.finetune.task import Task, read_features
from models.common.packing import PackedBatch
from models.common.tasks import tagging
from models.common.weights.canonical import tensors_sha256
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from mindspore import nn

    from models.common.runtime.mindspore_runtime import MindSporeRuntime

# Parts of the head that a flag asks for -> a tensor that only weights with that part have.
PARTS = {"use_crf": "heads.crf.transitions", "with_lstm": "heads.lstm.forward.bias"}
# The README's names of the methods -> the score of `tasks.tagging.scores` that each of them means.
METHODS = {"f1": "f1", "bf1": "class_blind_token_f1", "mf1": "token_macro_f1", "clue_benchmark": "entity_text_f1"}


@dataclass(frozen=True)
class TaggingConfig(FineTuneConfig):
    """Settings of `run_ner`."""

    assessment_method: str = option(
        "f1", "score that says which weights are the best: f1 of entities; bf1, mf1: the original's scores of single "
        "tags; clue_benchmark: CLUENER's own, and ner_predict.json is written",
        choices=tuple(METHODS),
    )  # fmt: skip
    epoch_num: int = option(5, "passes over the training data", low=1)
    num_class: int | None = option(None, "number of tags, checked against the features", low=2)
    unit: str | None = option(
        None, "what carries a tag in a text to predict; default: what does in the training features", choices=UNITS
    )
    use_crf: bool = option(False, "a conditional random field on top: tags are chosen together, not one by one")
    with_lstm: bool = option(False, "a bidirectional LSTM between encoder and tags")
    label_file_path: str | None = option(
        None, "tags in id order, for features that do not name them", aliases=("label2id_file_path",)
    )
    eval_data_file_path: str | None = option(
        None, "features to score on, written by data_tools.convert; with clue_benchmark CLUENER's JSON lines themselves"
    )
    save_finetune_checkpoint_path: str = option("./ner_finetune/ckpt/", "run folder: checkpoints, logs, results")


class TaggingTask(Task):
    """Fine-tuning of a tagger."""

    name = "ner"
    title = "fine-tuning a tagger of entities"
    head = ("heads.tagger.*", "heads.crf.*", "heads.lstm.*")
    label_head = "tagger"
    # Not "heads.*": a CRF or LSTM that is left out by mistake gives worse tags without a word.
    allowed_unused = ("heads.span.*", "heads.mlm.*", "heads.nsp.*", "heads.classifier.*", "pooler.*")
    free_to_change = FREE_TO_CHANGE | {"assessment_method", "num_class", "label_file_path", "unit"}
    config: TaggingConfig

    def __init__(self, config: TaggingConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.names: tuple[str, ...] | None = None
        self.data: FeatureSet | None = None
        self.benchmark: ClueBenchmark | None = None

    @property
    def best_by(self) -> str:
        """See `Task`."""
        return METHODS[self.config.assessment_method]

    @property
    def printed(self) -> tuple[str, ...]:
        """See `Task`."""
        return ("precision", "recall", "f1") if self.best_by == "f1" else (self.best_by,)

    def problems(self) -> list[str]:
        """See `Task`."""
        if self.config.do_eval and not self.config.eval_data_file_path:
            return ["--eval_data_file_path is needed"]
        return []

    def training_features(self, checkpoint: Checkpoint) -> FeatureSet:
        """See `Task`."""
        features = self._features(self.config.train_data_file_path, checkpoint)
        if "tag_id" not in features.tokens:
            raise UserError(f"{self.config.train_data_file_path}: has no tags to train on; convert a labelled file")
        return features

    def prepare_evaluation(self, checkpoint: Checkpoint) -> None:
        """See `Task`."""
        path, alone = self.config.eval_data_file_path, not self.config.do_train
        if alone:
            self.names = labels_of_weights(checkpoint, as_tags=True)
        if self.config.assessment_method == "clue_benchmark":
            if alone:  # sentences cannot name tags
                self.names = labels_of_model(checkpoint, self.config.label_file_path, as_tags=True)
            self.benchmark = ClueBenchmark(path)
            unit = self.config.unit or UNITS[0]  # CLUENER's own, where no training features say it
            path = self.benchmark.convert(replace(self.config, unit=unit), checkpoint, self.names)
        self.data = self._features(path, checkpoint)
        if alone:
            check_label_count(self.names, checkpoint, self.config.label_file_path or path)
        labelled = "tag_id" in self.data.tokens if self.benchmark is None else self.benchmark.gold is not None
        if self.config.do_train and not labelled:
            raise UserError(f"{path}: has no tags, so the best weights could not be told; convert a labelled file")

    def network(self, checkpoint: Checkpoint) -> "nn.Cell":
        """See `Task`."""
        config = self.config
        check_parts(config, checkpoint)
        return self.networks.tagging(
            checkpoint.config, len(self.names), config.use_crf, config.with_lstm, config.samples_per_row, config.seed
        )

    def training_network(self, network: "nn.Cell") -> "nn.Cell":
        """See `Task`."""
        from models.common.nn.training import TaggingTrainingNetwork

        return TaggingTrainingNetwork(network)

    def training_inputs(self, features: FeatureSet, batch: PackedBatch) -> list[np.ndarray]:
        """See `Task`."""
        return tagging.training_inputs(features, batch)

    def counted(self, features: FeatureSet) -> np.ndarray:
        """See `Task`."""
        return super().counted(features) if self.config.use_crf else features.lengths

    def evaluation(self, network: "nn.Cell") -> "TaggingEvaluation":
        """See `Task`."""
        runtime = self.runtime(network, tagging.OUTPUTS[self.config.use_crf])
        return TaggingEvaluation(self.config, self.data, self.names, runtime, self.benchmark)

    def labels(self) -> tuple[str, ...] | None:
        """See `Task`."""
        return self.names

    def _features(self, path: str, checkpoint: Checkpoint) -> FeatureSet:
        """Load one file; the first one that names the tags names them for the run, the others must agree."""
        config = self.config
        foreign = self.benchmark is None  # or CLUENER's sentences have become features with the run's tags by now
        features = with_words(read_features(path, config, checkpoint, ("tagging",), ("lower_case",), foreign))
        self.config = replace(config, unit=unit_of(features, path, config.unit))
        ids = features.tokens.get("tag_id")
        label_file = config.label_file_path if foreign else None
        self.names = agreed_labels(self.names, features, path, label_file, config.num_class, ids, as_tags=True)
        return features


def check_parts(config: TaggingConfig, checkpoint: Checkpoint) -> None:
    """Raise a `UserError` when weights have a part that the flags leave out, or fine-tuned ones lack one."""
    for flag, tensor in PARTS.items():
        there = tensor in checkpoint.tensors
        if there and not getattr(config, flag):
            raise UserError(f"{checkpoint.file}: has {tensor}; give --{flag} true")
        if not there and getattr(config, flag) and not config.do_train:
            raise UserError(f"{checkpoint.file}: has no {tensor}; give --{flag} false")


def unit_of(features: FeatureSet, path: str, wanted: str | None) -> str:
    """What carries a tag in these features, "character" or "word"; raises `UserError` where `wanted` is another.

    Of an MSRA or CoNLL file, which brings its own units, the usual one counts; there `wanted` wins.
    """
    made = features.info.get("unit")
    if made in UNITS:
        if wanted not in (None, made):
            raise UserError(f"{path}: made with --unit {made}, not {wanted}; give --unit {made}")
        return made
    if wanted is not None:
        return wanted
    words = features.tokens["word_id"]
    inside = np.flatnonzero(words >= 0)
    if not len(inside):
        return UNITS[0]
    # A word id that differs from the one before begins a unit; [CLS], with -1, is before the first of each sample.
    first = words[inside] != words[inside - 1]
    begins = features.tokens["offset_start"][inside[first]]
    last = np.append(np.flatnonzero(first)[1:], len(inside)) - 1
    lengths = features.tokens["offset_end"][inside[last]] - begins
    return "word" if np.median(lengths) > 1 else "character"


class TaggingEvaluation:
    """Scores a network on the sentences of `data`."""

    def __init__(
        self,
        config: TaggingConfig,
        data: FeatureSet,
        names: tuple[str, ...],
        runtime: "MindSporeRuntime",
        benchmark: ClueBenchmark | None,
    ) -> None:
        self.config, self.data, self.names, self.runtime, self.benchmark = config, data, names, runtime, benchmark
        gold = tagging.gold_ids_of(data)
        self.gold = None if gold is None else self._decode(gold)
        self.found: list[tagging.TaggedSentence] | None = None

    def score(self) -> dict[str, float]:
        """See `Evaluation`."""
        rng = np.random.default_rng(self.config.seed)
        order = rng.permutation(len(self.data)) if self.config.eval_data_shuffle else None
        self.found = self._decode(tagging.tag_ids_of(self.runtime.predict(self.data, order)))
        if self.benchmark is not None:
            return self.benchmark.scores(self.found)
        return {} if self.gold is None else tagging.scores(self.gold, self.found)

    def identity(self) -> str:
        """See `Evaluation`."""
        gold = "" if self.benchmark is None else sha256_of(self.benchmark.path)
        return gold + tensors_sha256({**self.data.tokens, "starts": self.data.starts, **self.data.scalars})

    def write(self) -> dict[str, Any]:
        """See `Evaluation`."""
        folder = Path(self.config.save_finetune_checkpoint_path)
        more = {}
        if self.benchmark is not None:
            self.benchmark.write(folder / CLUE_PREDICTIONS, self.found)
            more = self.benchmark.scores(self.found)
        return tagging.write_results(folder, self.found, self.gold, self.runtime.seconds, more)

    def _decode(self, ids: list[np.ndarray]) -> list[tagging.TaggedSentence]:
        return tagging.decode(self.data, ids, self.names, scheme_of(self.names))


def with_words(features: FeatureSet) -> FeatureSet:
    """The features with words, for record files of the original generator, which have none: every token between [CLS]
    and [SEP] is a word and every record a sentence; characters are not known (-1)."""
    if "word_id" in features.tokens:
        return features
    position = np.arange(len(features.tokens["input_ids"])) - np.repeat(features.starts[:-1], features.lengths)
    inner = (position > 0) & (position < np.repeat(features.lengths, features.lengths) - 1)
    nowhere = np.full(len(position), -1, np.int32)
    words = {"word_id": np.where(inner, position - 1, -1).astype(np.int32)}
    tokens = {**features.tokens, **words, "offset_start": nowhere, "offset_end": nowhere}
    return replace(features, tokens=tokens, scalars={**features.scalars, "sentence": np.arange(len(features))})
