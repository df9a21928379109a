"""Scores of pretrained weights: the flow of every `pretrain_eval` command."""

import json
from dataclasses import dataclass
from pathlib import Path

from models.common.config import option
from models.common.device import set_device
from models.common.errors import UserError
from models.common.files import write_json
from models.common.finetune.networks import Networks
from models.common.pretrain.scoring import Scorer
from models.common.weights.names import idle_tensors
from models.common.weights.reading import read_checkpoint


@dataclass(frozen=True)
class PretrainEvalConfig:
    """What a `pretrain_eval` command can be told."""

    device_target: str = option("CPU", "device that computes", choices=("CPU", "GPU", "Ascend"))
    device_id: int = option(0, "which device; on CPU there is only 0", low=0)
    load_checkpoint_path: str | None = option(
        None, "pretrained weights with their heads: file or folder, any format", aliases=("eval_ckpt",)
    )
    eval_data_dir: str | None = option(None, "pretraining features to score on", aliases=("data_dir",))
    schema_dir: str | None = option(None, "JSON schema of TFRecord files made elsewhere")
    eval_batch_size: int = option(8, "rows a batch holds", low=1, aliases=("batch_size",))
    eval_subset: int | None = option(None, "score on so many of the samples only", low=1)
    packing: bool = option(True, "several samples a row, so that padding is not computed; the scores are the same")
    max_samples_per_row: int = option(8, "most samples in one row", low=1)
    output_file: str | None = option(None, "JSON file for the scores; they are printed either way")


def run(config: PretrainEvalConfig, networks: Networks) -> None:
    """Score and print."""
    missing = [f"--{name} is needed" for name in ("load_checkpoint_path", "eval_data_dir") if not getattr(config, name)]
    if missing:
        raise UserError("; ".join(missing))
    from models.common.nn.kernels.switch import accelerate
    from models.common.weights.loading import load_into

    set_device(config.device_target, config.device_id)
    checkpoint = read_checkpoint(config.load_checkpoint_path)
    print(checkpoint.summary(), flush=True)
    samples = config.max_samples_per_row if config.packing else 1
    network = networks.pretraining(checkpoint.config, samples, 0)
    load_into(network, checkpoint.tensors, allow_unused=idle_tensors(checkpoint.config), allow_new=())
    accelerate(network)
    schema = Path(config.schema_dir) if config.schema_dir else None
    scorer = Scorer(
        Path(config.eval_data_dir), schema, checkpoint.config, checkpoint.vocab, network, config.eval_batch_size,
        samples, config.eval_subset,
    )  # fmt: skip
    scores = scorer.score()
    if config.output_file:
        write_json(config.output_file, scores)
    print(json.dumps(scores))
