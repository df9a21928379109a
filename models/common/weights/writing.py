"""Canonical tensors -> a folder of any known format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.weights.canonical import MODEL_FILE, check_canonical, save_canonical, save_companions
from models.common.weights.formats import CKPT_FILE, FORMATS
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import canonical_shapes, groups_in
from models.common.weights.safetensors_file import write_safetensors

# The transformers class whose weights are exactly these heads; the name goes into config.json.
_ARCHITECTURES = {
    (): "BertModel",
    ("heads.span",): "BertForQuestionAnswering",
    ("heads.mlm",): "BertForMaskedLM",
    ("heads.nsp",): "BertForNextSentencePrediction",
    ("heads.mlm", "heads.nsp"): "BertForPreTraining",
}


def write_checkpoint(
    to: str,
    folder: Path | str,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    vocab: Path | str | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write canonical `tensors` to `folder` in the format named `to`; returns the model file.

    Beside it: config.json, and vocab.txt if known. Values and dtypes are kept. `info` is stored where the format has
    room for it (canonical).
    """
    folder = Path(folder)
    if to == "canonical":
        save_canonical(folder, config, tensors, vocab, info)
        return folder / MODEL_FILE
    check_canonical(config, tensors, source="weights to write")
    table = FORMATS[to].table
    # In one order, whatever the source's, so that the same weights make the same .ckpt.
    names = canonical_shapes(config, groups_in(tensors))
    renamed = {str(table.from_canonical(name)): tensors[name] for name in names}
    if to == "hf":
        heads = tuple(group for group in groups_in(tensors) if group.startswith("heads."))
        save_companions(folder, _transformers_settings(config, heads), vocab)
        if not heads:  # transformers saves a bare BertModel without the prefix that the other classes give it
            renamed = {name.removeprefix("bert."): tensor for name, tensor in renamed.items()}
        write_safetensors(folder / MODEL_FILE, renamed, {"format": "pt"})
        return folder / MODEL_FILE
    save_companions(folder, config.to_dict(), vocab)
    write_ckpt(folder / CKPT_FILE, renamed)
    return folder / CKPT_FILE


def _transformers_settings(config: EncoderConfig, heads: tuple[str, ...]) -> dict[str, Any]:
    settings = {"model_type": "bert", "position_embedding_type": "absolute", "pad_token_id": 0, **config.to_dict()}
    if heads in _ARCHITECTURES:
        settings["architectures"] = [_ARCHITECTURES[heads]]
    return settings
