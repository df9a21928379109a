"""Canonical tensors -> a folder of any known format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.weights.canonical import MODEL_FILE, check_canonical, save_canonical, save_companions
from models.common.weights.formats import CKPT_FILE, FORMATS
from models.common.weights.matching import shorten
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import CLASSIFIER, POSITIONS, TAGGER, NameTable, groups_in, shapes_of
from models.common.weights.safetensors_file import write_safetensors
from models.common.weights.zoo_heads import to_zoo

# The transformers class whose weights are exactly these heads; the name goes into config.json.
_ARCHITECTURES = {
    (): "BertModel",
    ("heads.span",): "BertForQuestionAnswering",
    ("heads.mlm",): "BertForMaskedLM",
    ("heads.nsp",): "BertForNextSentencePrediction",
    ("heads.mlm", "heads.nsp"): "BertForPreTraining",
    (CLASSIFIER,): "BertForSequenceClassification",
    (TAGGER,): "BertForTokenClassification",
}


def write_checkpoint(
    to: str,
    folder: Path | str,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    vocab: Path | str | None = None,
    info: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write canonical `tensors` to `folder` in the format named `to`; returns the model file.

    Beside it: config.json, and vocab.txt if known. Values and dtypes are kept. `info` is stored where the format has
    room for it (canonical). `labels`: names of the classes or tags in id order. Raises `UserError` for a tensor that
    the format has no name for.
    """
    folder = Path(folder)
    if to == "canonical":
        save_canonical(folder, config, tensors, vocab, info, labels)
        return folder / MODEL_FILE
    check_canonical(config, tensors, source="weights to write")
    # In one order, whatever the source's, so that the same weights make the same .ckpt.
    names = list(shapes_of(config, tensors))
    table = _table(to, config, tensors)
    spelled = {name: table.from_canonical(name) for name in names}
    homeless = [name for name, other in spelled.items() if other is None]
    if homeless:
        raise UserError(f"{to} weights have no place for {', '.join(shorten(homeless))}")
    renamed = {str(spelled[name]): tensors[name] for name in names}
    if to == "hf":
        heads = tuple(group for group in groups_in(tensors) if group.startswith("heads."))
        save_companions(folder, _transformers_settings(config, heads), vocab, labels)
        if not heads:  # transformers saves a bare model without the prefix that the other classes give it
            renamed = {name.removeprefix("bert.").removeprefix("nezha."): it for name, it in renamed.items()}
        write_safetensors(folder / MODEL_FILE, renamed, {"format": "pt"})
        return folder / MODEL_FILE
    save_companions(folder, config.to_dict(), vocab, labels)
    write_ckpt(folder / CKPT_FILE, to_zoo(renamed) if to == "mindspore-zoo" else renamed)
    return folder / CKPT_FILE


def _table(to: str, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> NameTable:
    """The spelling for this network: NEZHA's where positions are relative, a tagger's where there is one."""
    tables = FORMATS[to].tables
    nezha = config.relative_kind != "none" and f"{POSITIONS}.weight" not in tensors
    table = tables[-1] if nezha else tables[0]
    return table.for_tagging() if to in ("hf", "mindspore-zoo") and TAGGER in groups_in(tensors) else table


def _transformers_settings(config: EncoderConfig, heads: tuple[str, ...]) -> dict[str, Any]:
    own = {"relative_kind", "max_relative_position", "compute_type"}
    settings = {name: value for name, value in config.to_dict().items() if name not in own}
    family, kind = "Bert", {"model_type": "bert", "position_embedding_type": "absolute"}
    if config.relative_kind == "sinusoidal":
        distance = {"use_relative_position": True, "max_relative_position": config.max_relative_position}
        family, kind = "Nezha", {"model_type": "nezha", **distance}
    if heads in _ARCHITECTURES:
        kind["architectures"] = [_ARCHITECTURES[heads].replace("Bert", family, 1)]
    return {"pad_token_id": 0, **kind, **settings}
