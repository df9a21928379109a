"""What a fine-tuning task adds to the flow of `running`: its features, its network, its score."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from data_tools.feature_store import FeatureSet, load_features
from models.common.errors import UserError
from models.common.files import sha256_of
from models.common.finetune.networks import Networks
from models.common.finetune.settings import FREE_TO_CHANGE, FineTuneConfig
from models.common.packing import PackedBatch
from models.common.train.workers import ALONE
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from mindspore import nn

    from models.common.runtime.mindspore_runtime import MindSporeRuntime


class Evaluation(Protocol):
    """Scores the present weights of one network on one file."""

    def score(self) -> dict[str, float]:
        """Predict everything and score it; what was predicted is kept for `write`."""

    def write(self) -> dict[str, float]:
        """Write the last predictions and their score into the run folder; returns what eval.json holds."""

    def identity(self) -> str:
        """Changes with whatever the score depends on, but the weights."""


class Task(ABC):
    """One command's task with its settings; made anew for every run."""

    name: ClassVar[str]  # of the .ckpt file, and in messages
    title: ClassVar[str]  # of the picture of the curves
    head: ClassVar[tuple[str, ...]]  # patterns of the parameters that a pretrained checkpoint need not have
    allowed_unused: ClassVar[tuple[str, ...]] = ("heads.*", "pooler.*")  # what a checkpoint may bring for nothing
    label_head: ClassVar[str | None] = None  # "classifier" or "tagger", for weights that call both alike
    free_to_change: ClassVar[frozenset[str]] = FREE_TO_CHANGE

    def __init__(self, config: FineTuneConfig, networks: Networks) -> None:
        self.config, self.networks, self.workers = config, networks, ALONE
        self.folder = Path(config.save_finetune_checkpoint_path)

    @property
    @abstractmethod
    def best_by(self) -> str:
        """The score that says which weights are the best."""

    @property
    def printed(self) -> tuple[str, ...]:
        """The scores that the command prints at its end."""
        return (self.best_by,)

    @abstractmethod
    def problems(self) -> list[str]:
        """Everything wrong with the task's own settings."""

    @abstractmethod
    def training_features(self, checkpoint: Checkpoint) -> FeatureSet:
        """The training features, checked against the settings and the model."""

    @abstractmethod
    def prepare_evaluation(self, checkpoint: Checkpoint) -> None:
        """Load what is scored on. Whatever cannot be scored is said now, not after hours of training."""

    @abstractmethod
    def network(self, checkpoint: Checkpoint) -> "nn.Cell":
        """The network with its head, freshly initialised, in the checkpoint's size."""

    @abstractmethod
    def training_network(self, network: "nn.Cell") -> "nn.Cell":
        """`network` behind a loss: batch -> scalar."""

    @abstractmethod
    def training_inputs(self, features: FeatureSet, batch: PackedBatch) -> list[np.ndarray]:
        """The inputs of the training network for one packed batch, in its order."""

    def counted(self, features: FeatureSet) -> np.ndarray:
        """What the loss of a batch is a mean over: how many of them each sample has, [N]. One, or its tokens."""
        return np.ones(len(features), np.int64)

    def runtime(self, network: "nn.Cell", outputs: Mapping[str, str]) -> "MindSporeRuntime":
        """What evaluates `network` in the shape that the settings ask for, shared with the other workers."""
        from models.common.runtime.mindspore_runtime import MindSporeRuntime

        config = self.config
        return MindSporeRuntime(
            network, outputs, config.max_seq_length, config.eval_batch_size, config.samples_per_row, self.workers
        )

    @abstractmethod
    def evaluation(self, network: "nn.Cell") -> Evaluation:
        """What scores `network`, after `prepare_evaluation`."""

    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in id order, known once features or weights have been read; None without classes."""
        return None


def read_features(
    path: Path | str,
    config: FineTuneConfig,
    checkpoint: Checkpoint,
    tasks: tuple[str, ...],
    stated: tuple[str, ...],
    foreign: bool = True,
) -> FeatureSet:
    """Load features of one of `tasks` and check them against the model and those settings that a sidecar states.

    foreign: they may be record files made elsewhere, of which the settings say what they are.
    """
    features = load_features(Path(path), *((config.schema_file_path, config.dataset_format) if foreign else ()))
    made_for = features.info.get("task", tasks[0])
    if made_for not in tasks:
        raise UserError(
            f"{path}: holds features for {made_for}, needed are those for {' or '.join(tasks)}; give others"
        )
    check_features(Path(path), features, config, checkpoint, stated)
    return features


def check_features(
    path: Path, features: FeatureSet, config: FineTuneConfig, checkpoint: Checkpoint, settings: tuple[str, ...]
) -> None:
    """Raise a `UserError` when features were made for another model, or with other values of `settings`.

    Features that no sidecar describes are only checked for what their numbers show.
    """
    problems = []
    longest, limit = int(features.lengths.max()), checkpoint.config.max_position_embeddings
    if longest > limit:
        problems.append(f"windows of {longest} tokens, the model has {limit} positions")
    elif longest > config.max_seq_length:
        problems.append(f"windows of {longest} tokens; give --max_seq_length {longest}")
    if int(features.tokens["input_ids"].max()) >= checkpoint.config.vocab_size:
        problems.append(f"a token id beyond the model's {checkpoint.config.vocab_size}")
    made, vocab = features.info.get("tokenizer"), config.vocab_file_path or checkpoint.vocab
    if made and vocab and made["sha256"] != sha256_of(vocab):
        problems.append(f"another vocabulary than {vocab}")
    stated: dict[str, Any] = {**features.info, "lower_case": made["lower_case"]} if made else {}
    for name in settings:
        flag = "do_lower_case" if name == "lower_case" else name
        if name in stated and stated[name] != getattr(config, flag):
            value = str(stated[name]).lower()
            problems.append(f"{flag} {value}, not {str(getattr(config, flag)).lower()}; give --{flag} {value}")
    if problems:
        raise UserError(f"{path}: made with {'; with '.join(problems)}, or convert the data again")
