"""A fine-tuned model ready to be asked: from a run folder, weights, or an export, each on the runtime that it means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.tokenization import WordPieceTokenizer
from models.common.device import set_device
from models.common.errors import UserError
from models.common.export.manifest import FILE_NAME, read_manifest
from models.common.finetune.finetuned import ModelConfig, read_finetuned
from models.common.finetune.networks import Networks

DEVICE_SETTINGS = {"device_target", "device_id"}
Outputs = Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class LoadedModel:
    """task: the block that a manifest has (`models.common.finetune.deployments`); labels: names in id order; predict:
    samples -> outputs of each."""

    task: dict[str, Any]
    labels: tuple[str, ...] | None
    tokenizer: WordPieceTokenizer
    predict: Callable[[FeatureSet], Outputs]


def load(path: Path, networks: Networks, flags: Mapping[str, Any], config: ModelConfig, rows: int) -> LoadedModel:
    """Load an export (its folder, or a file in it) or weights (a run's folder, or any format).

    flags: the settings that were given, which `config` was resolved from; rows: of a batch, where the model is weights.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / FILE_NAME).is_file():
        return _from_weights(path, networks, flags, rows)
    surplus = sorted(set(flags) - DEVICE_SETTINGS)
    if surplus:
        raise UserError(f"{path}: an export says itself how it was made; leave --{surplus[0]} out")
    return _from_export(folder, config)


def _from_export(folder: Path, config: ModelConfig) -> LoadedModel:
    manifest = read_manifest(folder)
    if manifest.tokenizer is None:
        raise UserError(f"{folder}: the export has no vocabulary, so no text can be read; export it again")
    set_device(config.device_target, config.device_id)
    from models.common.runtime.exported import runtime_of

    tokenizer = WordPieceTokenizer(folder / manifest.tokenizer.file, manifest.tokenizer.lower_case)
    return LoadedModel(manifest.task, manifest.labels, tokenizer, runtime_of(folder).predict)


def _from_weights(path: Path, networks: Networks, flags: Mapping[str, Any], rows: int) -> LoadedModel:
    config, model = read_finetuned(path, ModelConfig, [("flags", flags)])
    set_device(config.device_target, config.device_id)
    from models.common.nn.kernels.switch import accelerate
    from models.common.runtime.mindspore_runtime import MindSporeRuntime

    deployment, samples = model.deployment, config.max_samples_per_row
    network = model.network(networks, samples)
    accelerate(network)
    runtime = MindSporeRuntime(network, deployment.outputs, model.row_length, rows, samples)
    return LoadedModel(deployment.task, deployment.labels, model.tokenizer, runtime.predict)
