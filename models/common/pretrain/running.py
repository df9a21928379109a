"""The flow of every pretraining command: settings, checks, one phase or two, what lies in the run folder.

Settings come from the defaults, then `--recipe`, then `--config_path`, then flags. The run folder
(`--save_checkpoint_path`) then holds config.yaml, metrics.jsonl, curves.png, tb/, checkpoints/ (full state), best/ and
last/ (weights, canonical) and checkpoint_<model>.ckpt (the last weights for MindSpore, with config.json and vocab.txt).
A second phase has a folder like it in phase2/. The same command started again goes on where the run stopped, with as
many workers as it is given then.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.common.config import to_dict, to_yaml
from models.common.device import set_device
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import locked_folder, write_text
from models.common.finetune.networks import Networks
from models.common.pretrain.batches import PretrainingBatches
from models.common.pretrain.corpus import Corpus
from models.common.pretrain.scoring import Scorer
from models.common.pretrain.settings import FREE_TO_CHANGE, PretrainConfig
from models.common.tasks.pretrain import SCORES
from models.common.train.streams import StreamPlan
from models.common.train.watch import Watch
from models.common.train.workers import Workers, device_of, workers_of
from models.common.weights.canonical import load_config, save_canonical, save_companions, tensors_sha256
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import idle_tensors
from models.common.weights.reading import read_checkpoint

BEST_BY = "mlm_accuracy"


def run(config: PretrainConfig, networks: Networks) -> None:
    """Train all phases and print the last scores."""
    check(config)
    set_device(config.device_target, device_of(config))
    workers = workers_of(config)
    watch = Watch(workers)
    folder = Path(config.save_checkpoint_path)
    start = starting_point(config, networks)
    for later in config.phases[1:]:
        corpus_of(later, workers, start)  # or a mistake in it would be found when the first phase is over
    scores = None
    for number, phase in enumerate(config.phases, start=1):
        own = folder if number == 1 else folder / f"phase{number}"
        with locked_folder(own) if workers.writes else nullcontext():
            start, scores = Phase(phase, own, networks, workers, start).run()
    watch.close()
    if scores and workers.writes:
        print(json.dumps({name: scores[name] for name in SCORES}))


def check(config: PretrainConfig) -> None:
    """Everything that can be wrong before work starts, listed at once."""
    problems = [] if config.data_dir else ["--data_dir is needed"]
    if config.train_with_eval != bool(config.eval_data_dir):
        problems.append("--train_with_eval true and --eval_data_dir belong together; give both or none")
    if config.row_lengths and config.packing:
        problems.append("--bucket_list is for rows of one sample; give --packing false too, or leave it out")
    if not config.packing and config.max_samples_per_row != PretrainConfig.max_samples_per_row:
        problems.append("--max_samples_per_row has no use with --packing false")
    if config.train_steps == 0:
        problems.append("--train_steps 0 trains nothing; -1 means as many as the epochs have")
    if config.phase2.data_dir is None:
        given = [name for name, value in to_dict(config.phase2).items() if value is not None]
        problems += [f"--phase2.{name} has no use without --phase2.data_dir" for name in given]
    if config.vocab_file_path and not Path(config.vocab_file_path).is_file():
        problems.append(f"--vocab_file_path {config.vocab_file_path}: no such file")
    if config.load_checkpoint_path:
        given = [name for name in ("network", "vocab_size") if getattr(config, name) != getattr(PretrainConfig, name)]
        problems += [f"--{name} is of a network to initialise; --load_checkpoint_path has one" for name in given]
    problems += config.idle_device_settings + config.optimizer.idle + config.loss_scale.idle(config.compute_type)
    problems += data_sink_problems(config)
    if problems:
        raise UserError("; ".join(problems))


def data_sink_problems(config: PretrainConfig) -> list[str]:
    """A sentence on each thing that the data sink cannot do."""
    problems = []
    if config.enable_data_sink and config.device_target == "CPU":
        problems.append("--enable_data_sink true needs --device_target GPU or Ascend: MindSpore has no queue for the "
                        "data of a CPU, where the next data are read in the background without it")  # fmt: skip
    if config.enable_data_sink and len(config.row_lengths or ()) > 1:
        problems.append(f"--enable_data_sink true cannot go with --bucket_list {config.bucket_list}: in the queue, all "
                        "rows are of one length")  # fmt: skip
    if config.data_sink_steps > 1 and not config.enable_data_sink:
        problems.append(f"--data_sink_steps {config.data_sink_steps} has no use without --enable_data_sink true")
    if config.data_sink_steps > 1 and config.scales_loss:
        problems.append(f"--data_sink_steps {config.data_sink_steps} cannot go with a scaled loss, whose next scale "
                        "depends on this step's gradients; give 1, or --loss_scale.enable false")  # fmt: skip
    return problems


@dataclass(frozen=True)
class Start:
    """What a phase begins with: a network, its weights where there are any, and the vocabulary that belongs to them."""

    encoder: EncoderConfig
    tensors: Mapping[str, np.ndarray] | None
    vocab: Path | None


def starting_point(config: PretrainConfig, networks: Networks) -> Start:
    """What `--load_checkpoint_path` holds, or the network to initialise."""
    vocab = Path(config.vocab_file_path) if config.vocab_file_path else None
    if config.load_checkpoint_path:
        checkpoint = read_checkpoint(config.load_checkpoint_path)
        print(checkpoint.summary(), flush=True)
        return Start(checkpoint.config, checkpoint.tensors, vocab or checkpoint.vocab)
    path = Path(config.network)
    encoder = load_config(path) if path.suffix == ".json" else networks.named(config.network)
    return Start(dataclasses.replace(encoder, vocab_size=config.vocab_size or encoder.vocab_size), None, vocab)


def parts_of(config: PretrainConfig, workers: Workers) -> int:
    """How many batches of a device a step has, all workers together."""
    return workers.size * config.accumulation_steps


def streams_of(config: PretrainConfig, workers: Workers) -> int:
    """How many streams the data are dealt to."""
    return config.data_streams or parts_of(config, workers)


def corpus_of(config: PretrainConfig, workers: Workers, start: Start) -> Corpus:
    """The training data of a phase, as far as this worker reads them. Raises `UserError`."""
    streams = streams_of(config, workers)
    if streams % parts_of(config, workers):
        raise UserError(f"--data_streams {streams} is no multiple of {workers.size} workers times --accumulation_steps "
                        f"{config.accumulation_steps}")  # fmt: skip
    each = streams // workers.size
    own = range(workers.rank * each, (workers.rank + 1) * each)
    schema = Path(config.schema_dir) if config.schema_dir else None
    return Corpus(Path(config.data_dir), schema, own, streams, config.shuffle_samples, start.encoder, start.vocab)


class Phase:
    """One run of the training loop, in a folder of its own."""

    def __init__(
        self, config: PretrainConfig, folder: Path, networks: Networks, workers: Workers, start: Start
    ) -> None:
        from models.common.nn.kernels.switch import accelerate
        from models.common.nn.training import PartOfStep, PretrainingTrainingNetwork
        from models.common.weights.loading import load_into

        self.config, self.folder, self.networks, self.workers, self.start = config, folder, networks, workers, start
        self.encoder = with_overrides(config, start.encoder)
        self.parts, self.streams = parts_of(config, workers), streams_of(config, workers)
        self.corpus, self.plan = self._plan()
        self.network = networks.pretraining(self.encoder, self.plan.max_samples, config.seed)
        if start.tensors is not None:
            unused = ("heads.*", *idle_tensors(self.encoder))
            report = load_into(self.network, start.tensors, allow_unused=unused, allow_new=("heads.*", "pooler.*"))
            self._say(report)
        self.first_weights = tensors_sha256(self.tensors())
        self.training_network = PartOfStep(PretrainingTrainingNetwork(self.network))
        accelerate(self.training_network)

    def run(self) -> tuple[Start, dict[str, Any] | None]:
        """Train to the end; what the next phase begins with, and the best scores."""
        from models.common.train.loop import Cadence, Job, Trainer
        from models.common.train.metrics_log import plot_curves

        config, plan = self.config, self.plan
        scorer = self._scorer() if config.train_with_eval else None
        job = Job(
            plan=plan,
            schedule=config.optimizer.schedule_of(plan.total_steps),
            seed=config.seed,
            inputs=self._inputs(),
            save_weights=self._save_weights,
            identity=self._identity(),
            evaluate=scorer.score if scorer else None,
            evaluation_identity=scorer.identity if scorer else "",
            score=BEST_BY,
            loss_scale=config.loss_scale.start() if config.scales_loss else None,
        )
        self._say(
            f"{plan.samples} samples in {len(self.corpus.shards)} files, {plan.total_steps} steps of {self.streams} x "
            f"{plan.rows_per_part} rows x {' or '.join(map(str, plan.row_lengths))} tokens, "
            f"{plan.samples / plan.epoch_steps:.1f} samples a step"
        )
        kept = config.save_checkpoint_num if config.enable_save_ckpt else 0
        cadence = Cadence(config.eval_steps, config.save_checkpoint_steps, kept, config.data_sink_steps)
        trainer = Trainer(self.folder, self._step(), job, cadence, self.workers)
        completed = trainer.resume()
        if self.workers.writes:
            write_text(self.folder / "config.yaml", to_yaml(config))
        best = trainer.run(completed)
        if self.workers.writes:
            title = f"{self.folder.name}: pretraining"
            plot_curves(self.folder / "metrics.jsonl", self.folder / "curves.png", title, SCORES[:2])
        return Start(self.encoder, self.tensors(), self.start.vocab), best

    def tensors(self) -> dict[str, np.ndarray]:
        """The present weights."""
        return {name: parameter.asnumpy() for name, parameter in self.network.parameters_dict().items()}

    def _plan(self) -> tuple[Corpus, StreamPlan]:
        config, corpus = self.config, corpus_of(self.config, self.workers, self.start)
        plan = StreamPlan(
            corpus.data, config.row_lengths or (corpus.row_length,), config.train_batch_size * self.parts,
            config.epoch_size, config.seed, self.workers, config.do_shuffle,
            config.max_samples_per_row if config.packing else 1, None if config.train_steps < 0 else config.train_steps,
        )  # fmt: skip
        return corpus, plan

    def _inputs(self) -> Callable[[int], Any]:
        batches = PretrainingBatches(self.corpus, self.plan, self.config.accumulation_steps, self.workers)
        if self.config.enable_data_sink:
            from models.common.train.sink import sunk_inputs

            return partial(sunk_inputs, self.plan, batches)
        from models.common.train.inputs import host_inputs

        return partial(host_inputs, self.plan, batches.inputs)

    def _scorer(self) -> Scorer:
        config = self.config
        schema = Path(config.schema_dir) if config.schema_dir else None
        return Scorer(Path(config.eval_data_dir), schema, self.encoder, self.start.vocab, self.network,
                      config.eval_batch_size, self.plan.max_samples, config.eval_subset)  # fmt: skip

    def _step(self) -> Any:
        from models.common.optim.optimizers import make_optimizer
        from models.common.train.step import AccumulatedStep, TrainStep

        settings, parts = self.config.optimizer, self.config.accumulation_steps
        optimizer = make_optimizer(settings, self.network.trainable_params())
        step = TrainStep(
            self.training_network, optimizer, settings.max_grad_norm, self.config.scales_loss, settings.clip,
            several_workers=self.workers.size > 1,
        )  # fmt: skip
        return step if parts == 1 else AccumulatedStep(step, parts)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it goes on with."""
        from models.common.nn.kernels.switch import available

        settings = {name: value for name, value in to_dict(self.config).items() if name not in FREE_TO_CHANGE}
        return {
            **settings,
            "encoder": self.encoder.to_dict(),
            "streams": self.streams,
            "samples a step": self.config.train_batch_size * self.parts,
            "CPU kernels": available(),
            "first weights": self.first_weights,
            "training data": self.corpus.identity,
        }

    def _save_weights(self, kind: str) -> None:
        """`kind` is "best" (just evaluated) or "last" (training is over)."""
        if not (self.workers.writes and self.config.enable_save_ckpt):
            return
        tensors = self.tensors()
        save_canonical(self.folder / kind, self.encoder, tensors, self.start.vocab)
        if kind == "last":
            save_companions(self.folder, self.encoder.to_dict(), self.start.vocab)
            write_ckpt(self.folder / f"checkpoint_{self.networks.model}.ckpt", tensors)

    def _say(self, what: object) -> None:
        if self.workers.writes:
            print(what, flush=True)


def with_overrides(config: PretrainConfig, encoder: EncoderConfig) -> EncoderConfig:
    """The network's config with what the settings change in it."""
    rates = {name: getattr(config, name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    given = {name: value for name, value in rates.items() if value is not None}
    return dataclasses.replace(encoder, **given, compute_type=config.compute_type)
