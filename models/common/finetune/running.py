"""The flow of every fine-tuning command: settings, checks, training or evaluation, what lies in the run folder.

Settings come from the defaults, then `--recipe`, then `--config_path`, then flags. The run folder
(`--save_finetune_checkpoint_path`) then holds config.yaml, metrics.jsonl, curves.png, tb/, checkpoints/ (full state),
best/ and last/ (weights, canonical), <task>.ckpt (the best weights for MindSpore, with config.json and vocab.txt), the
predictions and eval.json. The same command started again goes on where the run stopped.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.feature_store import FeatureSet
from models.common.config import to_dict, to_yaml
from models.common.device import set_device
from models.common.errors import UserError
from models.common.files import locked_folder, write_text
from models.common.finetune.settings import FineTuneConfig
from models.common.finetune.task import Evaluation, Task
from models.common.train.watch import Watch
from models.common.train.workers import device_of, workers_of
from models.common.weights.canonical import save_canonical, save_companions, tensors_sha256
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import idle_tensors
from models.common.weights.reading import Checkpoint, read_checkpoint


def run(task: Task) -> None:
    """Train or evaluate as the settings say, and print the scores."""
    config = task.config
    check(task)
    set_device(config.device_target, device_of(config))
    task.workers = workers_of(config)
    watch = Watch(task.workers)
    with own_folder(task):
        scores = train(task) if config.do_train else evaluate(task)
    watch.close()
    if scores and task.workers.writes:
        print(json.dumps({name: scores[name] for name in task.printed if name in scores}))


@contextmanager
def own_folder(task: Task) -> Iterator[None]:
    """The run folder, locked, for the worker that writes; the others keep what they make in one that goes away."""
    if task.workers.writes:
        with locked_folder(task.folder):
            yield
        return
    with tempfile.TemporaryDirectory() as folder:
        task.config = dataclasses.replace(task.config, save_finetune_checkpoint_path=folder)
        task.folder = Path(folder)
        yield


def check(task: Task) -> None:
    """Everything that can be wrong before work starts, listed at once."""
    config = task.config
    needed = dict.fromkeys(("train_data_file_path", "load_pretrain_checkpoint_path"), config.do_train)
    needed["load_finetune_checkpoint_path"] = config.do_eval and not config.do_train
    problems = [f"--{name} is needed" for name, need in needed.items() if need and not getattr(config, name)]
    if not (config.do_train or config.do_eval):
        problems.append("nothing to do: give --do_train true or --do_eval true")
    if config.do_train and config.load_finetune_checkpoint_path:
        problems.append("--load_finetune_checkpoint_path is for evaluation only; to train on from fine-tuned weights "
                        "give them as --load_pretrain_checkpoint_path")  # fmt: skip
    if config.optimizer.head_learning_rate is not None and not config.optimizer.learning_rate:
        problems.append("--optimizer.head_learning_rate is taken relative to --optimizer.learning_rate, which is 0")
    problems += idle(config)
    problems += task.problems()
    if problems:
        raise UserError("; ".join(problems))


def idle(config: FineTuneConfig) -> list[str]:
    """Settings that could do nothing beside others. A run's own config.yaml, which holds all of them, has none."""
    problems = config.idle_device_settings + config.optimizer.idle
    if not config.packing and config.max_samples_per_row not in (1, FineTuneConfig.max_samples_per_row):
        problems.append(f"--max_samples_per_row {config.max_samples_per_row} has no use with --packing false, where a "
                        "row is one sample; leave one out, or give 1")  # fmt: skip
    return problems + config.loss_scale.idle(config.compute_type)


def train(task: Task) -> dict[str, Any] | None:
    """Fine-tune to the end of the last epoch; returns the best evaluation if there was one."""
    from models.common.finetune.batches import Batches
    from models.common.optim.optimizers import make_optimizer
    from models.common.train.batches import BatchPlan
    from models.common.train.inputs import host_inputs
    from models.common.train.loop import Cadence, Job, Trainer
    from models.common.train.metrics_log import plot_curves
    from models.common.train.step import TrainStep

    config, folder, workers = task.config, task.folder, task.workers
    checkpoint = read(config.load_pretrain_checkpoint_path, task.label_head)
    features = task.training_features(checkpoint)
    if config.do_eval:
        task.prepare_evaluation(checkpoint)
    network = build(task, checkpoint, new=task.head)
    settings = config.optimizer
    optimizer = make_optimizer(settings, network.trainable_params())
    plan = BatchPlan(
        features.lengths, config.max_seq_length, config.train_batch_size, config.epoch_num, config.seed,
        config.train_data_shuffle, config.samples_per_row,
    )  # fmt: skip
    evaluation = task.evaluation(network) if config.do_eval else None
    saver = WeightsSaver(task, checkpoint, network, evaluation)
    batches = Batches(task, features, plan)
    step = TrainStep(
        batches.training_network(network), optimizer, settings.max_grad_norm, config.scales_loss, settings.clip,
        several_workers=workers.size > 1,
    )  # fmt: skip
    job = Job(
        plan=plan,
        schedule=settings.schedule_of(plan.total_steps),
        seed=config.seed,
        inputs=partial(host_inputs, plan, batches.inputs),
        save_weights=saver.save,
        identity=identity(task, checkpoint, features),
        evaluate=evaluation.score if evaluation else None,
        evaluation_identity=f"{task.best_by}, {evaluation.identity()}" if evaluation else "",
        score=task.best_by,
        loss_scale=config.loss_scale.start() if config.scales_loss else None,
    )
    print(f"{len(features)} samples, {plan.total_steps} steps of {plan.rows_per_step} rows x {config.max_seq_length} "
          f"tokens, {len(features) * config.epoch_num / plan.total_steps:.1f} samples a step", flush=True)  # fmt: skip
    cadence = Cadence(config.eval_steps, config.save_checkpoint_steps, config.save_checkpoint_num)
    trainer = Trainer(folder, step, job, cadence, workers)
    completed = trainer.resume()
    write_text(folder / "config.yaml", to_yaml(task.config))  # a task may have settled more than it was told
    best = trainer.run(completed)
    if workers.writes:
        plot_curves(folder / "metrics.jsonl", folder / "curves.png", f"{folder.name}: {task.title}", task.printed)
    return best


def evaluate(task: Task) -> dict[str, float]:
    """Score fine-tuned weights and write what they predict."""
    checkpoint = read(task.config.load_finetune_checkpoint_path, task.label_head)
    task.prepare_evaluation(checkpoint)
    evaluation = task.evaluation(build(task, checkpoint, new=()))
    evaluation.score()
    return evaluation.write()


def read(path: str, label_head: str | None) -> Checkpoint:
    """Weights of any format; what was found is printed. `label_head` as in `read_checkpoint`."""
    checkpoint = read_checkpoint(path, head=label_head)
    print(checkpoint.summary(), flush=True)
    return checkpoint


def build(task: Task, checkpoint: Checkpoint, new: tuple[str, ...]) -> Any:
    """The task's network with the checkpoint's weights; parameters that fit `new` may be missing there."""
    from models.common.nn.kernels.switch import accelerate
    from models.common.weights.loading import load_into

    network = task.network(with_overrides(task.config, checkpoint))
    unused = (*task.allowed_unused, *idle_tensors(checkpoint.config))
    report = load_into(network, checkpoint.tensors, allow_unused=unused, allow_new=new)
    print(report, flush=True)
    accelerate(network)
    return network


def with_overrides(config: FineTuneConfig, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with what the settings change in its config."""
    overrides = {name: getattr(config, name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    given = {name: value for name, value in overrides.items() if value is not None} | {
        "compute_type": config.compute_type
    }
    return dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, **given))


def identity(task: Task, checkpoint: Checkpoint, features: FeatureSet) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on with."""
    from models.common.nn.kernels.switch import available

    settings = {name: value for name, value in to_dict(task.config).items() if name not in task.free_to_change}
    settings["CPU kernels"] = available()
    data = tensors_sha256({**features.tokens, "starts": features.starts, **features.scalars})
    names = list(task.labels() or ())
    return {**settings, "labels": names, "first weights": tensors_sha256(checkpoint.tensors), "training data": data}


@dataclasses.dataclass
class WeightsSaver:
    """Writes the network's present weights into the run folder."""

    task: Task
    checkpoint: Checkpoint
    network: Any
    evaluation: Evaluation | None

    def save(self, kind: str) -> None:
        """`kind` is "best" (just evaluated) or "last" (training is over)."""
        task, folder = self.task, self.task.folder
        if not task.workers.writes:
            return
        tensors = {name: p.asnumpy() for name, p in self.network.parameters_dict().items()}
        vocab = task.config.vocab_file_path or self.checkpoint.vocab
        save_canonical(folder / kind, self.checkpoint.config, tensors, vocab, labels=task.labels())
        if kind == "best":
            self.evaluation.write()
        if kind == "best" or not (folder / "best").exists():
            save_companions(folder, self.checkpoint.config.to_dict(), vocab, task.labels())
            write_ckpt(folder / f"{task.name}.ckpt", tensors)
