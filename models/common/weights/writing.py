"""Canonical tensors -> a folder of any known format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_text, write_text
from models.common.weights.canonical import MODEL_FILE, VOCAB_FILE, check_canonical, save_canonical, save_companions
from models.common.weights.formats import BERT, CKPT_FILE, PDPARAMS_FILE, VARIABLES, Family
from models.common.weights.matching import shorten
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import CLASSIFIER, POSITIONS, SPAN, TAGGER, NameTable, groups_in, shapes_of
from models.common.weights.paddle_tensors import write_variables
from models.common.weights.pdparams import write_pdparams
from models.common.weights.safetensors_file import write_safetensors
from models.common.weights.zoo_heads import to_zoo

# The transformers class whose weights are exactly these heads; the name goes into config.json.
_ARCHITECTURES = {
    (): "BertModel",
    (SPAN,): "BertForQuestionAnswering",
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
    family: Family = BERT,
) -> Path:
    """Write canonical `tensors` to `folder` in the format of `family` named `to`; returns the model file, or the folder
    of variables.

    Beside it: the config, and vocab.txt if known, as the format's readers spell it. Values and dtypes are kept. `info`
    is stored where the format has room for it (canonical). `labels`: names of the classes or tags in id order. Raises
    `UserError` for a tensor that the format has no name for.
    """
    folder = Path(folder)
    if to == "canonical":
        save_canonical(folder, config, tensors, vocab, info, labels)
        return folder / MODEL_FILE
    check_canonical(config, tensors, source="weights to write")
    table = _table(family, to, config, tensors)
    renamed = _spelled(to, table, config, tensors)
    heads = tuple(group for group in groups_in(tensors) if group.startswith("heads."))
    settings, tokens = config.to_dict(), []
    if to in ("hf", "paddlenlp"):
        settings, tokens = _transformers_settings(family, to, config, heads), _numbered_tokens(vocab)
        if not heads:  # a bare model is saved without the prefix that the classes with heads give it
            renamed = {name.removeprefix(table.optional_prefixes[0]): it for name, it in renamed.items()}
    save_companions(folder, settings, None if tokens else vocab, labels, family.formats[to].config_files[0])
    if tokens:
        write_text(folder / VOCAB_FILE, "".join(f"{token}\n" for token in tokens))
    return _write_model(to, folder, renamed)


def _numbered_tokens(vocab: Path | str | None) -> list[str]:
    """The tokens of a vocabulary that says their ids behind a tab, as Baidu's does; transformers and PaddleNLP would
    take the id for a part of the token. None of a vocabulary without ids."""
    text = "" if vocab is None else read_text(vocab)
    if "\t" not in text:
        return []
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines):
        if not line.endswith(f"\t{number}"):
            raise UserError(
                f"{vocab}, line {number + 1}: expected a token, a tab and the id {number}; correct the file"
            )
    return [line.rpartition("\t")[0] for line in lines]


def _spelled(
    to: str, table: NameTable, config: EncoderConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors under the format's names and with its rows and columns."""
    # In one order, whatever the source's, so that the same weights make the same file.
    spelled = {name: table.from_canonical(name) for name in shapes_of(config, tensors)}
    homeless = [name for name, other in spelled.items() if other is None]
    if homeless:
        raise UserError(f"{to} weights have no place for {', '.join(shorten(homeless))}")
    return {str(other): _arranged(tensors[name], table, name) for name, other in spelled.items()}


def _arranged(tensor: np.ndarray, table: NameTable, canonical: str) -> np.ndarray:
    """A view of the tensor with the format's rows and columns."""
    if canonical in table.reversed_classes:
        tensor = tensor[::-1]
    return tensor.T if table.is_transposed(canonical) else tensor


def _write_model(to: str, folder: Path, renamed: Mapping[str, np.ndarray]) -> Path:
    if to == "hf":
        path = folder / MODEL_FILE
        write_safetensors(path, renamed, {"format": "pt"})
    elif to == "fluid":
        path = folder / VARIABLES
        write_variables(path, renamed)
    elif to in ("paddlenlp", "ernie-dygraph"):
        path = folder / PDPARAMS_FILE
        write_pdparams(path, renamed)
    else:
        path = folder / CKPT_FILE
        write_ckpt(path, to_zoo(renamed) if to == "mindspore-zoo" else renamed)
    return path


def _table(family: Family, to: str, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> NameTable:
    """The spelling for this network: NEZHA's where positions are relative, that of the last layer where it has none of
    its own."""
    tables = family.formats[to].tables
    nezha = config.relative_kind != "none" and f"{POSITIONS}.weight" not in tensors
    table = tables[-1] if nezha else tables[0]
    last = next((head for head in (TAGGER, SPAN) if head in groups_in(tensors) and not table.has(head)), None)
    return table if last is None or CLASSIFIER in groups_in(tensors) else table.for_head(last)


def _transformers_settings(family: Family, to: str, config: EncoderConfig, heads: tuple[str, ...]) -> dict[str, Any]:
    own = {"relative_kind", "max_relative_position", "compute_type"}
    settings = {name: value for name, value in config.to_dict().items() if name not in own}
    prefix, kind = family.name.capitalize(), {"model_type": family.name, "position_embedding_type": "absolute"}
    if config.relative_kind == "sinusoidal":
        distance = {"use_relative_position": True, "max_relative_position": config.max_relative_position}
        prefix, kind = "Nezha", {"model_type": "nezha", **distance}
    if heads in _ARCHITECTURES:
        name = _ARCHITECTURES[heads].replace("Bert", prefix, 1)
        kind["architectures"] = [name.replace("PreTraining", "Pretraining") if to == "paddlenlp" else name]
    return {"pad_token_id": 0, **kind, **settings}
