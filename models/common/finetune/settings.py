"""Settings that every fine-tuning command has; a task adds its own in a subclass.

The flags of the original README keep their names.
"""

from dataclasses import dataclass

from models.common.config import option, section
from models.common.device import DeviceConfig
from models.common.encoder_config import COMPUTE_TYPES
from models.common.optim.settings import LossScaleConfig, OptimizerConfig


@dataclass(frozen=True)
class FineTuneConfig(DeviceConfig):
    """What all fine-tuning commands can be told."""

    do_train: bool = option(False, "fine-tune on train_data_file_path")
    do_eval: bool = option(False, "score while training, and at the end the best checkpoint")
    epoch_num: int = option(3, "passes over the training data", low=1)
    train_data_shuffle: bool = option(True, "shuffle the training samples anew each epoch")
    eval_data_shuffle: bool = option(False, "evaluate in random order; the score does not depend on it")
    train_batch_size: int = option(
        32, "samples a training step holds on average, all workers together (exactly, without packing)", low=1
    )
    eval_batch_size: int = option(8, "rows an evaluation batch holds", low=1)
    vocab_file_path: str | None = option(None, "vocabulary, one token a line; default: the one beside the weights")
    save_finetune_checkpoint_path: str = option("./finetune/ckpt/", "run folder: checkpoints, logs, results")
    load_pretrain_checkpoint_path: str | None = option(None, "weights to start from: file or folder, any format")
    load_finetune_checkpoint_path: str | None = option(None, "fine-tuned weights to evaluate, without do_train")
    train_data_file_path: str | None = option(None, "training features written by data_tools.convert")
    eval_data_file_path: str | None = option(None, "evaluation features written by data_tools.convert")
    schema_file_path: str | None = option(None, "JSON schema of TFRecord features made elsewhere")
    dataset_format: str | None = option(
        None, "what the features are, where the name of a file made elsewhere does not say it; others are refused",
        choices=("mindrecord", "tfrecord"),
    )  # fmt: skip
    max_seq_length: int = option(128, "tokens in a row; longer samples do not fit", low=8)
    do_lower_case: bool = option(True, "lower-case and strip accents, where features are made here")
    packing: bool = option(True, "several samples a row, so that padding is not computed; the loss is the same")
    max_samples_per_row: int = option(8, "most samples in one row", low=1)
    seed: int = option(1, "of shuffling, dropout and new parameters", low=0, high=2**31 - 1)
    eval_steps: int = option(0, "training steps between evaluations; 0: after each epoch", low=0)
    save_checkpoint_steps: int = option(
        500, "training steps between full-state checkpoints; 0: after each epoch", low=0
    )
    save_checkpoint_num: int = option(2, "full-state checkpoints kept", low=1)
    compute_type: str = option(
        "float32", "what the encoder multiplies in; float16 needs a GPU or Ascend", choices=COMPUTE_TYPES
    )
    hidden_dropout_prob: float | None = option(
        None, "overrides the dropout of the checkpoint's config", low=0.0, high=0.99
    )
    attention_probs_dropout_prob: float | None = option(
        None, "overrides the attention dropout of that config", low=0.0, high=0.99
    )
    optimizer: OptimizerConfig = section(OptimizerConfig)
    loss_scale: LossScaleConfig = section(LossScaleConfig)

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled."""
        return self.loss_scale.applies(self.compute_type)

    @property
    def samples_per_row(self) -> int:
        """Most samples in a row: 1 without packing."""
        return self.max_samples_per_row if self.packing else 1


# Settings that may change when a run is resumed, because no step's result depends on them.
FREE_TO_CHANGE = frozenset({
    "device_id", "distribute", "device_num", "do_train", "do_eval", "eval_data_shuffle", "eval_batch_size",
    "save_finetune_checkpoint_path", "load_finetune_checkpoint_path", "load_pretrain_checkpoint_path",
    "train_data_file_path", "eval_data_file_path", "vocab_file_path", "schema_file_path", "dataset_format",
    "eval_steps", "save_checkpoint_steps", "save_checkpoint_num", "do_lower_case",
})  # fmt: skip
