"""Question answering by spans (SQuAD, CMRC 2018, DRCD): features, training inputs, answers and their score."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import SIDECAR, FeatureSet
from data_tools.features.span import STRIDE_MEANINGS, SpanOptions
from data_tools.readers.squad import read_contexts
from models.common.config import option
from models.common.errors import UserError
from models.common.files import read_json, sha256_of
from models.common.finetune.networks import Networks
from models.common.finetune.settings import FREE_TO_CHANGE, FineTuneConfig
from models.common.finetune.task import Task, read_features
from models.common.packing import PackedBatch
from models.common.tasks import span
from models.common.weights.canonical import tensors_sha256
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from mindspore import nn

    from models.common.runtime.mindspore_runtime import MindSporeRuntime

# How features for evaluation were made; the export tells it to the C++ program's preprocessing.
WINDOW_SETTINGS = ("lower_case", "doc_stride", "stride_is", "max_query_length")


@dataclass(frozen=True)
class SpanConfig(FineTuneConfig):
    """Settings of `run_squad`."""

    num_class: int = option(2, "outputs per token; a span has 2, start and end", choices=(2,))
    eval_json_path: str | None = option(None, "SQuAD JSON with the questions and answers to score on")
    eval_data_file_path: str | None = option(None, "evaluation features; default: made from eval_json_path")
    save_finetune_checkpoint_path: str = option("./squad_finetune/ckpt/", "run folder: checkpoints, logs, results")
    max_seq_length: int = option(384, "tokens in a row; windows longer than that do not fit", low=8)
    doc_stride: int = option(128, "tokens that two windows of a context share, where features are made here", low=0)
    stride_is: str = option("overlap", "meaning of doc_stride, see data_tools.convert squad", choices=STRIDE_MEANINGS)
    max_query_length: int = option(64, "longest question in tokens, where features are made here", low=1)
    n_best_size: int = option(20, "starts and ends tried in each window, and answers kept per question", low=1)
    max_answer_length: int = option(30, "longest answer in tokens", low=1)
    assessment_method: str = option(
        span.DEFAULT_METRIC,
        "metric of the answers, also of exports; squad keeps the weights of the best F1, cmrc (for CMRC 2018 and DRCD) "
        "those of the best mean of F1 and exact match",
        choices=tuple(span.METRICS),
    )


class SpanTask(Task):
    """Fine-tuning on SQuAD."""

    name = "squad"
    title = "fine-tuning on SQuAD"
    head = ("heads.span.*",)
    free_to_change = FREE_TO_CHANGE | {
        "eval_json_path", "n_best_size", "max_answer_length", "doc_stride", "stride_is", "max_query_length",
        "num_class", "assessment_method",
    }  # fmt: skip
    config: SpanConfig

    def __init__(self, config: SpanConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.data: EvaluationData | None = None

    @property
    def best_by(self) -> str:
        """See `Task`."""
        return span.METRICS[self.config.assessment_method].best

    @property
    def printed(self) -> tuple[str, ...]:
        """See `Task`."""
        return span.METRICS[self.config.assessment_method].printed

    def problems(self) -> list[str]:
        """See `Task`."""
        if self.config.do_eval and not self.config.eval_json_path:
            return ["--eval_json_path is needed"]
        if self.config.eval_data_file_path and not self.config.eval_json_path:
            return ["--eval_data_file_path needs --eval_json_path: the answers are in the JSON"]
        return []

    def training_features(self, checkpoint: Checkpoint) -> FeatureSet:
        """See `Task`."""
        path, config = self.config.train_data_file_path, self.config
        features = read_features(path, config, checkpoint, ("span",), ("lower_case",))
        if not {"start_position", "end_position"} <= features.scalars.keys():
            raise UserError(f"{path}: made for evaluation, it has no labels; convert with --is_training true")
        starts, ends = (features.scalars[name] for name in ("start_position", "end_position"))
        wrong = np.flatnonzero((starts < 0) | (ends < starts) | (ends >= features.lengths))
        if len(wrong):
            at = wrong[0]
            raise UserError(f"{path}, sample {at}: answer tokens {starts[at]}..{ends[at]} of {features.lengths[at]}; "
                            "convert the data again")  # fmt: skip
        return features

    def prepare_evaluation(self, checkpoint: Checkpoint) -> None:
        """See `Task`."""
        self.data = EvaluationData(self.config, checkpoint, self.folder)

    def network(self, checkpoint: Checkpoint) -> "nn.Cell":
        """See `Task`."""
        return self.networks.span(checkpoint.config, self.config.seed)

    def training_network(self, network: "nn.Cell") -> "nn.Cell":
        """See `Task`."""
        from models.common.nn.training import SpanTrainingNetwork

        return SpanTrainingNetwork(network)

    def training_inputs(self, features: FeatureSet, batch: PackedBatch) -> list[np.ndarray]:
        """See `Task`."""
        return span.training_inputs(features, batch, self.config.samples_per_row)

    def evaluation(self, network: "nn.Cell") -> "SpanEvaluation":
        """See `Task`."""
        return SpanEvaluation(self.config, self.data, self.runtime(network, span.OUTPUTS), self.folder)


class EvaluationData:
    """What is scored on: the dataset, its contexts, and its windows, made here where none are given."""

    def __init__(self, config: SpanConfig, checkpoint: Checkpoint, folder: Path) -> None:
        self.config, path = config, config.eval_json_path
        self.sha256 = sha256_of(path)
        self.features = self._features(checkpoint, folder)
        self.contexts = read_contexts(path)
        self.metric = span.METRICS[config.assessment_method]
        self.dataset = self.metric.load_dataset(path)
        self.metric.evaluate(self.dataset, dict.fromkeys(self.contexts, ""), path)  # finds what cannot be scored

    def _features(self, checkpoint: Checkpoint, folder: Path) -> FeatureSet:
        config = self.config
        path = config.eval_data_file_path
        if path is None:
            path = folder / "eval_features"
            self._convert(path, config.vocab_file_path or checkpoint.vocab)
        features = read_features(path, config, checkpoint, ("span",), WINDOW_SETTINGS, foreign=False)
        source = features.info.get("source", {}).get("sha256")
        if "offset_start" not in features.tokens or features.qas_ids is None or source is None:
            raise UserError(f"{path}: not made for evaluation; convert with --is_training false")
        if source != self.sha256:
            raise UserError(f"{path}: made from another file than {config.eval_json_path}; convert this one")
        return features

    def _convert(self, target: Path, vocab: Path | str | None) -> None:
        """Make the features, unless a former run of this folder left the very same."""
        if vocab is None:
            raise UserError("no vocab.txt lies beside the weights; give --vocab_file_path")
        config = self.config
        options = SpanOptions(config.max_seq_length, config.doc_stride, config.stride_is, config.max_query_length)
        wanted = {
            "source": self.sha256, "tokenizer": sha256_of(vocab), "lower_case": config.do_lower_case,
            **dataclasses.asdict(options),
        }  # fmt: skip
        if (target / SIDECAR).is_file():
            found = read_json(target / SIDECAR)
            have = {name: found.get(name) for name in dataclasses.asdict(options)}
            have |= {"source": found["source"]["sha256"], "tokenizer": found["tokenizer"]["sha256"]}
            have["lower_case"] = found["tokenizer"]["lower_case"]
            if have == wanted:
                return
        convert_squad(SquadConversion(
            input_file=Path(config.eval_json_path), vocab_file=Path(vocab), output_dir=target, is_training=False,
            do_lower_case=config.do_lower_case, span=options, dataset_format="numpy", overwrite=True,
        ))  # fmt: skip


class SpanEvaluation:
    """Scores a network on the questions of `data`."""

    def __init__(self, config: SpanConfig, data: EvaluationData, runtime: "MindSporeRuntime", folder: Path) -> None:
        self.config, self.data, self.runtime, self.folder = config, data, runtime, folder
        self.answers: tuple[dict, dict] | None = None

    def score(self) -> dict[str, float]:
        """See `Evaluation`."""
        config, data = self.config, self.data
        rng = np.random.default_rng(config.seed)
        order = rng.permutation(len(data.features)) if config.eval_data_shuffle else None
        logits = self.runtime.predict(data.features, order)
        self.answers = span.decode(data.features, logits, data.contexts, config.n_best_size, config.max_answer_length)
        return data.metric.evaluate(data.dataset, self.answers[0], config.eval_json_path)

    def identity(self) -> str:
        """See `Evaluation`."""
        config, features = self.config, self.data.features
        tokens = tensors_sha256({**features.tokens, "starts": features.starts})
        return f"{self.data.sha256} {tokens} {config.n_best_size} {config.max_answer_length}"

    def write(self) -> dict[str, float]:
        """See `Evaluation`."""
        config, seconds = self.config, self.runtime.seconds
        return span.write_results(
            self.folder, *self.answers, self.data.dataset, config.eval_json_path, seconds, config.assessment_method
        )
