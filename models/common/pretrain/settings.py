"""Settings of pretraining commands. The flags of the original README keep their names."""

import dataclasses
from dataclasses import dataclass

from models.common.config import option, section, to_dict
from models.common.device import DeviceConfig
from models.common.encoder_config import COMPUTE_TYPES
from models.common.errors import UserError
from models.common.optim.settings import LossScaleConfig, OptimizerConfig


@dataclass(frozen=True)
class SecondPhaseConfig:
    """A second phase on longer rows, as BERT was trained: it starts from the weights of the first, with moments and
    schedule of its own. What is not named here is as in the first phase."""

    data_dir: str | None = option(None, "training data of the second phase; without it there is none")
    train_batch_size: int | None = option(None, "samples a device takes at a time", low=1)
    accumulation_steps: int | None = option(None, "batches of a device between two updates", low=1)
    epoch_size: int | None = option(None, "passes over its data", low=1)
    train_steps: int | None = option(None, "at most so many steps", low=1)
    learning_rate: float | None = option(None, "highest learning rate", low=0.0)
    warmup_steps: int | None = option(None, "steps in which the learning rate rises", low=0)


@dataclass(frozen=True)
class PretrainConfig(DeviceConfig):
    """What all pretraining commands can be told."""

    network: str = option("base", "a network of networks.yaml, or a config.json", aliases=("bert_network",))
    vocab_size: int | None = option(None, "rows of its word table, where it is not that of a checkpoint", low=8)
    data_dir: str | None = option(None, "training data: a folder of pretraining features, or of the original's files")
    schema_dir: str | None = option(None, "JSON schema of TFRecord files made elsewhere")
    vocab_file_path: str | None = option(
        None, "vocabulary that goes along with the weights; default: the one beside load_checkpoint_path"
    )
    epoch_size: int = option(1, "passes over the training data", low=1)
    train_steps: int = option(-1, "at most so many steps; -1: as many as the epochs have", low=-1)
    train_batch_size: int = option(
        32, "samples a device takes at a time, on average (exactly, without packing)", low=1, aliases=("batch_size",)
    )
    accumulation_steps: int = option(1, "batches of a device between two updates", low=1)
    allreduce_post_accumulation: bool = option(
        True, "gradients are added up over the workers once, behind the last batch of a step: behind each would cost "
        "traffic and change nothing", choices=(True,),
    )  # fmt: skip
    data_streams: int | None = option(
        None,
        "streams that the data files are dealt to, a multiple of the workers times accumulation_steps (the default); "
        "what a step consists of depends on it, and not on how many workers share it",
        low=1,
    )
    shuffle_samples: int = option(
        262144, "samples of a stream that lie in memory and are shuffled together; whole files, at least one", low=1
    )
    do_shuffle: bool = option(True, "shuffle the samples anew each epoch")
    packing: bool = option(True, "several samples a row, so that padding is not computed; the loss is the same")
    max_samples_per_row: int = option(8, "most samples in one row", low=1)
    bucket_list: str | None = option(
        None, "row lengths such as 128,256,512: each sample goes into the shortest that holds it, one sample a row"
    )
    enable_save_ckpt: bool = option(True, "save full states and weights")
    save_checkpoint_path: str = option("./pretrain/", "run folder: checkpoints, logs, results")
    save_checkpoint_steps: int = option(1000, "steps between full states; 0: after each epoch", low=0)
    save_checkpoint_num: int = option(1, "full states kept", low=1)
    load_checkpoint_path: str | None = option(None, "weights to start from: file or folder, any format")
    train_with_eval: bool = option(False, "score while training")
    eval_data_dir: str | None = option(None, "features to score on")
    eval_steps: int = option(0, "training steps between evaluations; 0: after each epoch", low=0)
    eval_batch_size: int = option(8, "rows an evaluation batch holds", low=1)
    eval_subset: int | None = option(None, "score on so many of them only", low=1)
    enable_data_sink: bool = option(
        False, "batches go ahead of the steps through a queue of the device: GPU and Ascend only; without it the next "
        "data are read in the background, and a batch is made when its step begins",
    )  # fmt: skip
    data_sink_steps: int = option(
        1, "steps that the device is given before their losses are looked at, with enable_data_sink and a loss that is "
        "not scaled; a divergence may be noticed that much later", low=1,
    )  # fmt: skip
    seed: int = option(1, "of shuffling, dropout and new parameters", low=0, high=2**31 - 1)
    compute_type: str = option(
        "float32", "what the encoder multiplies in; float16 needs a GPU or Ascend", choices=COMPUTE_TYPES
    )
    hidden_dropout_prob: float | None = option(None, "overrides the network's dropout", low=0.0, high=0.99)
    attention_probs_dropout_prob: float | None = option(None, "overrides its attention dropout", low=0.0, high=0.99)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    loss_scale: LossScaleConfig = section(LossScaleConfig)
    phase2: SecondPhaseConfig = section(SecondPhaseConfig)

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled."""
        return self.loss_scale.applies(self.compute_type)

    @property
    def row_lengths(self) -> tuple[int, ...] | None:
        """Of `bucket_list`, ascending; None without. Raises `UserError`."""
        if self.bucket_list is None:
            return None
        try:
            lengths = [int(length) for length in self.bucket_list.strip("[]").split(",")]
        except ValueError:
            lengths = [0]
        if min(lengths) < 8 or sorted(set(lengths)) != lengths:
            raise UserError(f"--bucket_list {self.bucket_list}: give ascending row lengths, such as 128,256,512")
        return tuple(lengths)

    @property
    def phases(self) -> list["PretrainConfig"]:
        """The settings of each phase."""
        if self.phase2.data_dir is None:
            return [self]
        changes = {name: value for name, value in to_dict(self.phase2).items() if value is not None}
        rates = {name: changes.pop(name) for name in ("learning_rate", "warmup_steps") if name in changes}
        optimizer = dataclasses.replace(self.optimizer, **rates)
        second = dataclasses.replace(self, **changes, optimizer=optimizer, load_checkpoint_path=None)
        return [self, second]


# Settings that may change when a run is resumed, because no step's result depends on them, or because what depends on
# them stands in the run's identity itself.
FREE_TO_CHANGE = frozenset({
    "device_id", "device_num", "distribute", "network", "vocab_size", "data_dir", "schema_dir", "vocab_file_path",
    "train_batch_size", "accumulation_steps", "data_streams", "enable_save_ckpt", "save_checkpoint_path",
    "save_checkpoint_steps", "save_checkpoint_num", "load_checkpoint_path", "train_with_eval", "eval_data_dir",
    "eval_steps", "eval_batch_size", "eval_subset", "enable_data_sink", "data_sink_steps",
    "allreduce_post_accumulation", "phase2",
})  # fmt: skip
