"""Fine-tuned weights with all that belongs to them: task, labels, vocabulary, and the settings of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data_tools.features.span import STRIDE_MEANINGS
from data_tools.readers.tagging import UNITS
from data_tools.tokenization import WordPieceTokenizer
from models.common.config import load_yaml, option, resolve
from models.common.errors import UserError
from models.common.finetune.deployments import DEPLOYMENTS, Deployment, task_of
from models.common.finetune.networks import Networks
from models.common.tasks.span import DEFAULT_MAX_ANSWER_LENGTH, DEFAULT_METRIC, DEFAULT_N_BEST_SIZE, METRICS
from models.common.weights.canonical import MODEL_FILE
from models.common.weights.names import idle_tensors
from models.common.weights.reading import read_checkpoint

if TYPE_CHECKING:
    from mindspore import nn

RUN_CONFIG = "config.yaml"


@dataclass(frozen=True)
class ModelConfig:
    """What weights do not say themselves; a run says it, and flags win over the run."""

    task: str | None = option(
        None, "what the model was fine-tuned for; default: what its head is for", choices=tuple(DEPLOYMENTS)
    )
    max_samples_per_row: int = option(8, "most samples in a packed row", low=1)
    max_seq_length: int | None = option(
        None, "tokens in a row and in the longest sample; default: the run's, else 384 for squad and 128", low=8
    )
    vocab_file_path: str | None = option(None, "vocabulary; default: the one beside the weights")
    do_lower_case: bool = option(True, "the vocabulary is lower-case")
    label_file_path: str | None = option(None, "classifier, ner: labels in id order, for weights that do not name them")
    doc_stride: int = option(128, "squad: tokens that two windows of a context share", low=0)
    stride_is: str = option(
        "overlap", "squad: meaning of doc_stride, see data_tools.convert squad", choices=STRIDE_MEANINGS
    )
    max_query_length: int = option(64, "squad: longest question in tokens", low=1)
    n_best_size: int = option(DEFAULT_N_BEST_SIZE, "squad: starts and ends tried in each window", low=1)
    max_answer_length: int = option(DEFAULT_MAX_ANSWER_LENGTH, "squad: longest answer in tokens", low=1)
    assessment_method: str = option(
        DEFAULT_METRIC, "squad: what scores its answers; default: the run's", choices=tuple(METRICS)
    )
    unit: str = option("character", "ner: what carries a tag in a text to predict", choices=UNITS)
    device_target: str = option("CPU", "device that MindSpore computes on", choices=("CPU", "GPU", "Ascend"))
    device_id: int = option(0, "which device; on CPU there is only 0", low=0)


AnyConfig = TypeVar("AnyConfig", bound=ModelConfig)


@dataclass(frozen=True)
class FineTuned:
    """Weights of one task, without a network yet."""

    deployment: Deployment
    tokenizer: WordPieceTokenizer

    @property
    def row_length(self) -> int:
        """Tokens of a row, and of the longest sample."""
        return self.deployment.task["max_seq_length"]

    def network(self, networks: Networks, samples_per_row: int) -> "nn.Cell":
        """The network with the weights, for rows of at most so many samples."""
        from models.common.weights.loading import load_into

        checkpoint = self.deployment.checkpoint
        network = self.deployment.network(networks, samples_per_row)
        unused = (*self.deployment.allowed_unused, *idle_tensors(checkpoint.config))
        load_into(network, checkpoint.tensors, allow_unused=unused)
        return network


def read_finetuned(
    path: Path, config_class: type[AnyConfig], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[AnyConfig, FineTuned]:
    """Read weights of any format, or a run's folder, with the settings of the run below `layers` (as `resolve` takes).

    Raises `UserError` for weights that are for no task, settings that are not for their task, a vocabulary that does
    not fit.
    """
    config = resolve(config_class, layers)
    weights, run_config = locate(path)
    checkpoint = read_checkpoint(weights, head=config.task and DEPLOYMENTS[config.task].label_head)
    task = task_of(config.task, checkpoint)
    kind = DEPLOYMENTS[task]
    given = set().union(*(settings for _, settings in layers))
    refused = sorted(given & ({name for known in DEPLOYMENTS.values() for name in known.settings} - {*kind.settings}))
    if refused:
        raise UserError(f"--{refused[0]} is not for {task} models; leave it out")
    if run_config:
        wanted = {"max_seq_length", "max_samples_per_row", "do_lower_case", *kind.settings}
        taken = {name: value for name, value in load_yaml(run_config).items() if name in wanted}
        config = resolve(config_class, [(str(run_config), taken), *layers])
    print(checkpoint.summary(), flush=True)
    length, limit = config.max_seq_length or kind.max_seq_length, checkpoint.config.max_position_embeddings
    if length > limit:
        raise UserError(f"--max_seq_length {length}: the model has {limit} position embeddings")
    vocab = config.vocab_file_path or checkpoint.vocab
    if vocab is None:
        raise UserError("no vocab.txt lies beside the weights; give --vocab_file_path")
    tokenizer = WordPieceTokenizer(vocab, config.do_lower_case)
    if len(tokenizer.vocab) > checkpoint.config.vocab_size:
        raise UserError(f"{vocab}: has {len(tokenizer.vocab)} tokens, the model {checkpoint.config.vocab_size}")
    settings = {"max_seq_length": length} | {name: getattr(config, name) for name in kind.settings}
    return config, FineTuned(kind(checkpoint, settings, config.label_file_path), tokenizer)


def locate(path: Path) -> tuple[Path, Path | None]:
    """(the weights, config.yaml of their run if there is one); of a run folder the best weights."""
    if (path / RUN_CONFIG).is_file():
        kept = [path / kind for kind in ("best", "last") if (path / kind / MODEL_FILE).is_file()]
        if not kept:
            raise UserError(f"{path}: the run has no best/ or last/ weights yet; let it finish")
        return kept[0], path / RUN_CONFIG
    # Weights of a run lie in its folder (squad.ckpt) or one below (best/model.safetensors).
    above = [parent / RUN_CONFIG for parent in path.absolute().parents[: 1 if path.is_dir() else 2]]
    return path, next((file for file in above if file.is_file()), None)
