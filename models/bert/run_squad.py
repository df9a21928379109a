"""Fine-tune BERT on SQuAD and score it: `python -m models.bert.run_squad --help`.

Settings come from the defaults, then `--recipe`, then `--config_path`, then flags. The run folder
(`--save_finetune_checkpoint_path`) then holds config.yaml, metrics.jsonl, curves.png, tb/, checkpoints/ (full state),
best/ and last/ (weights, canonical), squad.ckpt (the best weights for MindSpore, with config.json and vocab.txt),
predictions.json, nbest_predictions.json and eval.json. The same command started again goes on where the run stopped.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import SIDECAR, FeatureSet, load_features
from data_tools.features.span import SpanOptions
from data_tools.readers.squad import read_contexts
from models.bert.config import OTHER_HEADS, OUTPUTS, RECIPES, SquadConfig
from models.common.cli import command_parser, run_main
from models.common.config import add_flags, given_flags, load_recipe, load_yaml, resolve, to_dict, to_yaml
from models.common.device import set_device
from models.common.errors import UserError
from models.common.files import locked_folder, read_json, sha256_of, write_text
from models.common.metrics import squad
from models.common.packing import pack
from models.common.tasks import span
from models.common.weights.canonical import save_canonical, save_companions, tensors_sha256
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.reading import Checkpoint, read_checkpoint

# How features for evaluation were made; the export tells it to the C++ program's preprocessing.
WINDOW_SETTINGS = ("lower_case", "doc_stride", "stride_is", "max_query_length")
# Settings that may change when a run is resumed, because no step's result depends on them.
FREE_TO_CHANGE = {
    "do_train", "do_eval", "eval_data_shuffle", "eval_batch_size", "eval_json_path", "save_finetune_checkpoint_path",
    "load_finetune_checkpoint_path", "load_pretrain_checkpoint_path", "train_data_file_path", "eval_data_file_path",
    "vocab_file_path", "schema_file_path", "n_best_size", "max_answer_length", "eval_steps", "save_checkpoint_steps",
    "save_checkpoint_num", "doc_stride", "stride_is", "max_query_length", "do_lower_case", "num_class",
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    config = parse(argv)
    check(config)
    set_device(config.device_target, config.device_id)
    with locked_folder(config.save_finetune_checkpoint_path) as folder:
        scores = train(config, folder) if config.do_train else evaluate(config, folder)
    if scores:
        print(json.dumps({name: scores[name] for name in ("exact_match", "f1")}))


def parse(argv: list[str] | None) -> SquadConfig:
    """Arguments -> resolved config."""
    parser = command_parser("models.bert.run_squad", __doc__.split("\n")[0])
    parser.add_argument("--recipe", metavar="NAME", help=f"named settings of {RECIPES.name}")
    parser.add_argument("--config_path", metavar="FILE", help="YAML file of settings; wins over --recipe")
    add_flags(parser, SquadConfig)
    arguments = parser.parse_args(argv)
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if arguments.recipe:
        layers.append((f"recipe {arguments.recipe}", load_recipe(RECIPES, arguments.recipe)))
    if arguments.config_path:
        layers.append((arguments.config_path, load_yaml(arguments.config_path)))
    layers.append(("flags", given_flags(arguments, SquadConfig)))
    return resolve(SquadConfig, layers)


def check(config: SquadConfig) -> None:
    """Everything that can be wrong before work starts, listed at once."""
    needed = {"eval_json_path": config.do_eval}
    needed |= dict.fromkeys(("train_data_file_path", "load_pretrain_checkpoint_path"), config.do_train)
    needed["load_finetune_checkpoint_path"] = config.do_eval and not config.do_train
    problems = [f"--{name} is needed" for name, need in needed.items() if need and not getattr(config, name)]
    if not (config.do_train or config.do_eval):
        problems.append("nothing to do: give --do_train true or --do_eval true")
    if config.do_train and config.load_finetune_checkpoint_path:
        problems.append("--load_finetune_checkpoint_path is for evaluation only; to train on from fine-tuned weights "
                        "give them as --load_pretrain_checkpoint_path")  # fmt: skip
    if config.eval_data_file_path and not config.eval_json_path:
        problems.append("--eval_data_file_path needs --eval_json_path: the answers are in the JSON")
    if problems:
        raise UserError("; ".join(problems))


def train(config: SquadConfig, folder: Path) -> dict[str, Any] | None:
    """Fine-tune to the end of the last epoch; returns the best evaluation if there was one."""
    from models.bert.network import SpanTrainingNetwork
    from models.common.optim import optimizers
    from models.common.optim.loss_scale import DynamicLossScale
    from models.common.optim.schedule import Schedule
    from models.common.train.batches import BatchPlan
    from models.common.train.loop import Cadence, Job, Trainer
    from models.common.train.metrics_log import plot_curves
    from models.common.train.step import TrainStep

    checkpoint = read_checkpoint(config.load_pretrain_checkpoint_path)
    print(checkpoint.summary(), flush=True)
    features = load_training_features(config, checkpoint)
    network = build(config, checkpoint, new=("heads.span.*",))
    settings = config.optimizer
    optimizer = optimizers.create(
        settings.name, network.trainable_params(), settings.weight_decay, settings.beta1, settings.beta2, settings.eps
    )
    step = TrainStep(SpanTrainingNetwork(network), optimizer, settings.max_grad_norm, config.loss_scale.enable)
    samples_per_row = config.max_samples_per_row if config.packing else 1
    plan = BatchPlan(
        features.lengths, config.max_seq_length, config.train_batch_size, config.epoch_num, config.seed,
        config.train_data_shuffle, samples_per_row,
    )  # fmt: skip
    warmup = round(settings.warmup_ratio * plan.total_steps)
    evaluation = Evaluation(config, checkpoint, network, folder) if config.do_eval else None
    saver = WeightsSaver(config, checkpoint, network, folder, evaluation)
    scale = config.loss_scale

    def make_inputs(step_plan: Any) -> tuple[list[np.ndarray], int]:
        batch = pack(features, step_plan.rows, config.max_seq_length, plan.rows_per_step)
        return span.training_inputs(features, batch, samples_per_row), len(batch.samples)

    job = Job(
        plan=plan,
        schedule=Schedule(settings.learning_rate, plan.total_steps, warmup, settings.end_learning_rate, settings.power),
        seed=config.seed,
        make_inputs=make_inputs,
        save_weights=saver.save,
        identity=identity(config, checkpoint, features),
        evaluate=evaluation.score if evaluation else None,
        evaluation_identity=evaluation.identity() if evaluation else "",
        loss_scale=DynamicLossScale(scale.initial, scale.factor, scale.window) if scale.enable else None,
    )
    print(f"{len(features)} windows, {plan.total_steps} steps of {plan.rows_per_step} rows x {config.max_seq_length} "
          f"tokens, {len(features) * config.epoch_num / plan.total_steps:.1f} samples a step", flush=True)  # fmt: skip
    cadence = Cadence(config.eval_steps, config.save_checkpoint_steps, config.save_checkpoint_num)
    trainer = Trainer(folder, step, job, cadence)
    completed = trainer.resume()
    write_text(folder / "config.yaml", to_yaml(config))
    best = trainer.run(completed)
    plot_curves(folder / "metrics.jsonl", folder / "curves.png", f"{folder.name}: fine-tuning on SQuAD")
    return best


def evaluate(config: SquadConfig, folder: Path) -> dict[str, float]:
    """Score fine-tuned weights and write the answers."""
    checkpoint = read_checkpoint(config.load_finetune_checkpoint_path)
    print(checkpoint.summary(), flush=True)
    evaluation = Evaluation(config, checkpoint, build(config, checkpoint, new=()), folder)
    evaluation.score()
    return evaluation.write()


def build(config: SquadConfig, checkpoint: Checkpoint, new: tuple[str, ...]) -> Any:
    """The question-answering network with the checkpoint's weights; parameters that fit `new` may be missing there."""
    from models.bert.network import BertForQuestionAnswering
    from models.common.nn.kernels.switch import accelerate
    from models.common.weights.loading import load_into

    overrides = {name: getattr(config, name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    given = {name: value for name, value in overrides.items() if value is not None}
    network = BertForQuestionAnswering(dataclasses.replace(checkpoint.config, **given), seed=config.seed)
    report = load_into(network, checkpoint.tensors, allow_unused=OTHER_HEADS, allow_new=new)
    print(report, flush=True)
    accelerate(network)
    return network


def load_training_features(config: SquadConfig, checkpoint: Checkpoint) -> FeatureSet:
    """The training features, checked against the settings and the model."""
    path = Path(config.train_data_file_path)
    features = load_features(path, config.schema_file_path)
    if not {"start_position", "end_position"} <= features.scalars.keys():
        raise UserError(f"{path}: made for evaluation, it has no labels; convert with --is_training true")
    check_features(path, features, config, checkpoint, ("lower_case",))
    starts, ends = (features.scalars[name] for name in ("start_position", "end_position"))
    wrong = np.flatnonzero((starts < 0) | (ends < starts) | (ends >= features.lengths))
    if len(wrong):
        at = wrong[0]
        raise UserError(f"{path}, sample {at}: answer tokens {starts[at]}..{ends[at]} of {features.lengths[at]}; "
                        "convert the data again")  # fmt: skip
    return features


def check_features(
    path: Path, features: FeatureSet, config: SquadConfig, checkpoint: Checkpoint, settings: tuple[str, ...]
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
    stated = {**features.info, "lower_case": made["lower_case"]} if made else {}
    for name in settings:
        flag = "do_lower_case" if name == "lower_case" else name
        if name in stated and stated[name] != getattr(config, flag):
            value = str(stated[name]).lower()
            problems.append(f"{flag} {value}, not {str(getattr(config, flag)).lower()}; give --{flag} {value}")
    if problems:
        raise UserError(f"{path}: made with {'; with '.join(problems)}, or convert the data again")


def identity(config: SquadConfig, checkpoint: Checkpoint, features: FeatureSet) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on with."""
    from models.common.nn.kernels.switch import available

    settings = {name: value for name, value in to_dict(config).items() if name not in FREE_TO_CHANGE}
    settings["CPU kernels"] = available()
    data = tensors_sha256({**features.tokens, "starts": features.starts, **features.scalars})
    return {**settings, "first weights": tensors_sha256(checkpoint.tensors), "training data": data}


class Evaluation:
    """Scores a network on `eval_json_path`."""

    def __init__(self, config: SquadConfig, checkpoint: Checkpoint, network: Any, folder: Path) -> None:
        from models.common.runtime.mindspore_runtime import MindSporeRuntime

        self.config, self.folder, self.checkpoint = config, folder, checkpoint
        samples = config.max_samples_per_row if config.packing else 1
        self.runtime = MindSporeRuntime(network, OUTPUTS, config.max_seq_length, config.eval_batch_size, samples)
        self.features = self._features()
        self.contexts = read_contexts(config.eval_json_path)
        self.dataset = squad.load_dataset(config.eval_json_path)
        # Whatever cannot be scored is to be said now, not after hours of training.
        squad.evaluate(self.dataset, dict.fromkeys(self.contexts, ""), config.eval_json_path)
        self.answers: tuple[dict, dict] | None = None

    def score(self) -> dict[str, float]:
        """Predict all windows and score the answers, which are kept for `write`."""
        config = self.config
        rng = np.random.default_rng(config.seed)
        order = rng.permutation(len(self.features)) if config.eval_data_shuffle else None
        logits = self.runtime.predict(self.features, order)
        self.answers = span.decode(self.features, logits, self.contexts, config.n_best_size, config.max_answer_length)
        return squad.evaluate(self.dataset, self.answers[0], config.eval_json_path)

    def identity(self) -> str:
        """Changes with whatever the score depends on, but the weights."""
        config = self.config
        tokens = tensors_sha256({**self.features.tokens, "starts": self.features.starts})
        return f"{sha256_of(config.eval_json_path)} {tokens} {config.n_best_size} {config.max_answer_length}"

    def write(self) -> dict[str, float]:
        """Write the last answers and their score into the run folder."""
        path, seconds = self.config.eval_json_path, self.runtime.seconds
        return span.write_results(self.folder, *self.answers, self.dataset, path, seconds)

    def _features(self) -> FeatureSet:
        config = self.config
        path = config.eval_data_file_path
        if path is None:
            path = self.folder / "eval_features"
            self._convert(path, config.vocab_file_path or self.checkpoint.vocab)
        features = load_features(path)
        source = features.info.get("source", {}).get("sha256")
        if "offset_start" not in features.tokens or features.qas_ids is None or source is None:
            raise UserError(f"{path}: not made for evaluation; convert with --is_training false")
        if source != sha256_of(config.eval_json_path):
            raise UserError(f"{path}: made from another file than {config.eval_json_path}; convert this one")
        check_features(Path(path), features, config, self.checkpoint, WINDOW_SETTINGS)
        return features

    def _convert(self, target: Path, vocab: Path | str | None) -> None:
        """Make the features, unless a former run of this folder left the very same."""
        if vocab is None:
            raise UserError("no vocab.txt lies beside the weights; give --vocab_file_path")
        config = self.config
        options = SpanOptions(config.max_seq_length, config.doc_stride, config.stride_is, config.max_query_length)
        wanted = {
            "source": sha256_of(config.eval_json_path), "tokenizer": sha256_of(vocab),
            "lower_case": config.do_lower_case, **dataclasses.asdict(options),
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


@dataclasses.dataclass
class WeightsSaver:
    """Writes the network's present weights into the run folder."""

    config: SquadConfig
    checkpoint: Checkpoint
    network: Any
    folder: Path
    evaluation: Evaluation | None

    def save(self, kind: str) -> None:
        """`kind` is "best" (just evaluated) or "last" (training is over)."""
        tensors = {name: p.asnumpy() for name, p in self.network.parameters_dict().items()}
        vocab = self.config.vocab_file_path or self.checkpoint.vocab
        save_canonical(self.folder / kind, self.checkpoint.config, tensors, vocab)
        if kind == "best":
            self.evaluation.write()
        if kind == "best" or self.evaluation is None:
            save_companions(self.folder, self.checkpoint.config.to_dict(), vocab)
            write_ckpt(self.folder / "squad.ckpt", tensors)


if __name__ == "__main__":
    run_main(main)
