"""What an exported model of each task is: its head, its outputs, its labels, and what its manifest says of the task.

The manifest's task block holds `name`, `max_seq_length` and scalars that the task's own pre- and postprocessing read.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from data_tools.features.span import SpanOptions
from models.common.errors import UserError
from models.common.finetune.labels import labels_of_model, scheme_of
from models.common.finetune.networks import Networks
from models.common.finetune.tagging import PARTS, TaggingTask
from models.common.tasks import classification, span, tagging
from models.common.weights.names import CLASSIFIER, TAGGER, label_count
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from mindspore import nn


class Deployment(ABC):
    """One model of one task. The class says what every model of that task has in common."""

    name: ClassVar[str]  # of the task in the manifest
    head: ClassVar[str]  # a tensor that only weights for this task have
    outputs: dict[str, str]  # what the network gives, in its order: name -> per token or sample
    label_head: ClassVar[str | None] = None  # as `read_checkpoint` takes it
    max_seq_length: ClassVar[int] = 128  # where neither a flag nor the run says it
    settings: ClassVar[tuple[str, ...]] = ()  # flags of the export that go into the task block
    allowed_unused: ClassVar[tuple[str, ...]] = ("heads.*", "pooler.*")

    def __init__(self, checkpoint: Checkpoint, settings: dict[str, Any], label_file: str | None) -> None:
        """settings: of the task block; label_file: names the labels where the weights do not."""
        self.checkpoint, self.task = checkpoint, {"name": self.name, **settings}
        self.labels = self._labels(label_file)

    @abstractmethod
    def network(self, networks: Networks, samples_per_row: int) -> "nn.Cell":
        """The network with the weights' head, freshly initialised."""

    def _labels(self, label_file: str | None) -> tuple[str, ...] | None:
        """Names of the classes in id order: of the file, else of the weights."""
        return labels_of_model(self.checkpoint, label_file)


class SpanDeployment(Deployment):
    """Question answering."""

    name, head, outputs = "span", "heads.span.weight", span.OUTPUTS
    max_seq_length = 384
    settings = (
        "doc_stride", "stride_is", "max_query_length", "n_best_size", "max_answer_length", "assessment_method",
    )  # fmt: skip

    def __init__(self, checkpoint: Checkpoint, settings: dict[str, Any], label_file: str | None) -> None:
        """See `Deployment`. Raises `UserError` when the settings make no windows."""
        super().__init__(checkpoint, settings, label_file)
        SpanOptions(*(settings[name] for name in ("max_seq_length", *self.settings[:3])))

    def network(self, networks: Networks, samples_per_row: int) -> "nn.Cell":  # noqa: ARG002 (only heads per sample ask)
        """See `Deployment`."""
        return networks.span(self.checkpoint.config, 0)

    def _labels(self, label_file: str | None) -> None:
        if label_file is not None:
            raise UserError("--label_file_path: answers have no labels; leave it out")


class ClassificationDeployment(Deployment):
    """Classes of texts, or numbers where the head has one output."""

    name, head, outputs, label_head = "classification", f"{CLASSIFIER}.weight", classification.OUTPUTS, "classifier"

    def network(self, networks: Networks, samples_per_row: int) -> "nn.Cell":
        """See `Deployment`."""
        classes = label_count(self.checkpoint.tensors)
        return networks.classification(self.checkpoint.config, classes, samples_per_row, 0)

    def _labels(self, label_file: str | None) -> tuple[str, ...] | None:
        if label_count(self.checkpoint.tensors) > 1:
            return super()._labels(label_file)
        if label_file is not None:
            raise UserError(
                f"--label_file_path: {self.checkpoint.file} gives a number, which has no label; leave it out"
            )
        return None


class TaggingDeployment(Deployment):
    """Entities."""

    name, head, label_head = "tagging", f"{TAGGER}.weight", "tagger"
    settings = ("unit",)
    allowed_unused = TaggingTask.allowed_unused

    def __init__(self, checkpoint: Checkpoint, settings: dict[str, Any], label_file: str | None) -> None:
        """See `Deployment`. Raises `UserError` when the labels are no tags."""
        super().__init__(checkpoint, settings, label_file)
        self.task["scheme"] = scheme_of(self.labels)
        self.use_crf, self.with_lstm = (tensor in checkpoint.tensors for tensor in PARTS.values())
        self.outputs = tagging.OUTPUTS[self.use_crf]

    def _labels(self, label_file: str | None) -> tuple[str, ...]:
        return labels_of_model(self.checkpoint, label_file, as_tags=True)

    def network(self, networks: Networks, samples_per_row: int) -> "nn.Cell":
        """See `Deployment`."""
        count = label_count(self.checkpoint.tensors)
        return networks.tagging(self.checkpoint.config, count, self.use_crf, self.with_lstm, samples_per_row, 0)


# By the names that --task gives them.
DEPLOYMENTS: dict[str, type[Deployment]] = {
    "squad": SpanDeployment, "classifier": ClassificationDeployment, "ner": TaggingDeployment,
}  # fmt: skip


def task_of(given: str | None, checkpoint: Checkpoint) -> str:
    """`--task`, or the task whose head the weights have.

    Raises `UserError` when they have none or several, or not the one of the given task.
    """
    found = [task for task, kind in DEPLOYMENTS.items() if kind.head in checkpoint.tensors]
    if given is not None and given not in found:
        raise UserError(f"{checkpoint.file}: has no head for --task {given} ({DEPLOYMENTS[given].head})")
    if given is None and len(found) != 1:
        raise UserError(
            f"{checkpoint.file}: has heads of {', '.join(found) or 'no task'}; give fine-tuned weights, and --task "
            "where they have several heads"
        )
    return given or found[0]
