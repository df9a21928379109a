"""Classification and regression of texts and pairs of texts (TNEWS, CoLA, ChnSentiCorp, XNLI, STS-B, and files like
them), and the ranking of candidate answers by their class (NLPCC-DBQA)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_tools.feature_store import FeatureSet
from models.common.config import option
from models.common.errors import UserError
from models.common.finetune.labels import agreed_labels, check_label_count, labels_of_weights
from models.common.finetune.networks import Networks
from models.common.finetune.settings import FREE_TO_CHANGE, FineTuneConfig
from models.common.finetune.task import Task, read_features
from models.common.packing import PackedBatch
from models.common.tasks import classification
from models.common.weights.canonical import tensors_sha256
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from mindspore import nn

    from models.common.runtime.mindspore_runtime import MindSporeRuntime

REGRESSION_CLASSES = 1


@dataclass(frozen=True)
class ClassificationConfig(FineTuneConfig):
    """Settings of `run_classifier`."""

    assessment_method: str = option(
        "accuracy", "score that says which weights are the best; all are written to eval.json",
        choices=("accuracy", "f1", "mcc", "mrr", "spearman_correlation"),
    )  # fmt: skip
    num_class: int | None = option(
        None, "number of classes, checked against the features; 1: a number is learned", low=1
    )
    label_file_path: str | None = option(None, "labels in id order, for features that do not name them")
    eval_data_file_path: str | None = option(None, "features to score on, written by data_tools.convert")
    save_finetune_checkpoint_path: str = option("./classifier_finetune/ckpt/", "run folder: checkpoints, logs, results")


class ClassificationTask(Task):
    """Fine-tuning of a classifier, or of a regression."""

    name = "classifier"
    title = "fine-tuning a classifier"
    head = ("heads.classifier.*", "pooler.*")
    label_head = "classifier"
    free_to_change = FREE_TO_CHANGE | {"assessment_method", "num_class", "label_file_path"}
    config: ClassificationConfig

    def __init__(self, config: ClassificationConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.regression = config.assessment_method == "spearman_correlation"
        self.names: tuple[str, ...] | None = None
        self.data: FeatureSet | None = None

    @property
    def best_by(self) -> str:
        """See `Task`."""
        return self.config.assessment_method

    @property
    def printed(self) -> tuple[str, ...]:
        """See `Task`."""
        ranks = self.best_by == classification.RANKING_SCORE
        return ("accuracy", "f1", self.best_by) if ranks else (self.best_by,)

    def problems(self) -> list[str]:
        """See `Task`."""
        config, problems = self.config, []
        if config.do_eval and not config.eval_data_file_path:
            problems.append("--eval_data_file_path is needed")
        if self.regression and config.num_class not in (None, REGRESSION_CLASSES):
            problems.append("--assessment_method spearman_correlation learns a number: --num_class must be 1")
        if not self.regression and config.num_class == REGRESSION_CLASSES:
            problems.append(
                f"--num_class 1 learns a number, which --assessment_method {config.assessment_method} cannot score; "
                "give --assessment_method spearman_correlation"
            )
        if self.regression and config.label_file_path:
            problems.append("--label_file_path: --assessment_method spearman_correlation learns a number, which has no "
                            "label; leave it out")  # fmt: skip
        return problems

    def training_features(self, checkpoint: Checkpoint) -> FeatureSet:
        """See `Task`."""
        features = self._features(self.config.train_data_file_path, checkpoint)
        if "label" not in features.scalars:
            raise UserError(f"{self.config.train_data_file_path}: has no labels to train on; convert a labelled file")
        return features

    def prepare_evaluation(self, checkpoint: Checkpoint) -> None:
        """See `Task`."""
        path = self.config.eval_data_file_path
        of_weights = not (self.config.do_train or self.regression)
        if of_weights:
            self.names = labels_of_weights(checkpoint)
        self.data = self._features(path, checkpoint)
        if of_weights:
            check_label_count(self.names, checkpoint, self.config.label_file_path or path)
        if self.config.do_train and "label" not in self.data.scalars:
            raise UserError(f"{path}: has no labels, so the best weights could not be told; convert a labelled file")
        self._check_ranking(path)

    def network(self, checkpoint: Checkpoint) -> "nn.Cell":
        """See `Task`."""
        classes = REGRESSION_CLASSES if self.regression else len(self.names)
        return self.networks.classification(checkpoint.config, classes, self.config.samples_per_row, self.config.seed)

    def training_network(self, network: "nn.Cell") -> "nn.Cell":
        """See `Task`."""
        from models.common.nn.training import ClassificationTrainingNetwork

        return ClassificationTrainingNetwork(network)

    def training_inputs(self, features: FeatureSet, batch: PackedBatch) -> list[np.ndarray]:
        """See `Task`."""
        return classification.training_inputs(features, batch, self.config.samples_per_row)

    def evaluation(self, network: "nn.Cell") -> "ClassificationEvaluation":
        """See `Task`."""
        runtime = self.runtime(network, classification.OUTPUTS)
        return ClassificationEvaluation(self.config, self.data, self.names, runtime, self.folder)

    def labels(self) -> tuple[str, ...] | None:
        """See `Task`."""
        return self.names

    def _check_ranking(self, path: str) -> None:
        """`--assessment_method mrr` needs candidates of questions, and classes that say whether one is right."""
        if self.config.assessment_method != classification.RANKING_SCORE:
            return
        if "qid" not in self.data.scalars:
            raise UserError(
                f"{path}: does not say which candidates belong to one question; convert it with --dataset dbqa or "
                "--qid, or give another --assessment_method"
            )
        if len(self.names) != 2:
            raise UserError(f"{path}: has {len(self.names)} labels; --assessment_method mrr ranks by the second of two")

    def _features(self, path: str, checkpoint: Checkpoint) -> FeatureSet:
        """Load one file; the first one that names the labels names them for the run, the others must agree."""
        config = self.config
        features = read_features(path, config, checkpoint, classification.FEATURES, ("lower_case",))
        label = features.scalars.get("label")
        if label is not None and np.issubdtype(label.dtype, np.floating) != self.regression:
            raise UserError(
                f"{path}: its labels are {'classes, not numbers' if self.regression else 'numbers, not classes'}; "
                "--assessment_method spearman_correlation is for numbers, the others are for classes"
            )
        if not self.regression:
            self.names = agreed_labels(self.names, features, path, config.label_file_path, config.num_class, label)
        return features


class ClassificationEvaluation:
    """Scores a network on the samples of `data`."""

    def __init__(
        self,
        config: ClassificationConfig,
        data: FeatureSet,
        names: tuple[str, ...] | None,
        runtime: "MindSporeRuntime",
        folder: Path,
    ) -> None:
        self.config, self.data, self.names, self.runtime, self.folder = config, data, names, runtime, folder
        self.logits: np.ndarray | None = None

    def score(self) -> dict[str, float]:
        """See `Evaluation`."""
        rng = np.random.default_rng(self.config.seed)
        order = rng.permutation(len(self.data)) if self.config.eval_data_shuffle else None
        self.logits = np.stack(self.runtime.predict(self.data, order)["logits"])
        gold = self.data.scalars.get("label")
        return {} if gold is None else classification.scores(self.logits, gold, self.data.scalars.get("qid"))

    def identity(self) -> str:
        """See `Evaluation`."""
        return tensors_sha256({**self.data.tokens, "starts": self.data.starts, **self.data.scalars})

    def write(self) -> dict[str, float]:
        """See `Evaluation`."""
        gold, questions = (self.data.scalars.get(name) for name in ("label", "qid"))
        return classification.write_results(self.folder, self.logits, gold, self.names, self.runtime.seconds, questions)
