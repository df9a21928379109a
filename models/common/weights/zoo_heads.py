"""What the old ModelZoo's tagger holds in another arrangement than ours: the CRF and the LSTM.

Source: official/nlp/Bert/src/CRF.py and finetune_eval_model.py. Its CRF counts START and STOP as two further tags, the
last two: n + 2 outputs of `bert.dense_1`, and `loss.transitions` [to, from] with what comes from START in a column and
what goes to STOP in a row. No path has START or STOP in its middle (their transitions are -10000), so their emissions
change no result; they are left behind, and written as zeros. MindSpore's LSTM has two biases that are only ever added.

Shapes: L tags, H hidden.
"""

from collections.abc import Mapping

import numpy as np

from models.common.errors import UserError

TRANSITIONS, DENSE, LSTM = "loss.transitions", "bert.dense_1", "bert.lstm"
FORBIDDEN = -10000.0
_DIRECTIONS = {"forward": "", "backward": "_reverse"}


def from_zoo(held: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors under the zoo's names, with CRF and LSTM replaced by ours, and notes on what was left behind.

    Raises `UserError` when the shapes of these do not belong together.
    """
    tensors, notes = dict(held), []
    if TRANSITIONS in tensors:
        tensors |= _split_crf(tensors, source)
        del tensors[TRANSITIONS]
        notes.append("the emissions of START and STOP, which no path uses, stay behind")
    if f"{LSTM}.weight_ih_l0" in tensors:
        tensors = _join_biases(tensors, source)
    return tensors, notes


def to_zoo(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `from_zoo`."""
    result = dict(tensors)
    if "heads.crf.transitions" in result:
        transitions, start, end = (result.pop(f"heads.crf.{name}") for name in ("transitions", "start", "end"))
        tags = len(start)
        whole = np.full((tags + 2, tags + 2), FORBIDDEN, transitions.dtype)
        whole[:tags, :tags], whole[:tags, tags], whole[tags + 1, :tags] = transitions.T, start, end
        result[TRANSITIONS] = whole
        for name in (f"{DENSE}.weight", f"{DENSE}.bias"):
            result[name] = np.concatenate([result[name], np.zeros_like(result[name][:2])])
    for ours, theirs in _DIRECTIONS.items():
        if f"heads.lstm.{ours}.bias" in result:
            result[f"{LSTM}.weight_ih_l0{theirs}"] = result.pop(f"heads.lstm.{ours}.weight_input")
            result[f"{LSTM}.weight_hh_l0{theirs}"] = result.pop(f"heads.lstm.{ours}.weight_hidden")
            bias = result.pop(f"heads.lstm.{ours}.bias")
            result |= {f"{LSTM}.bias_ih_l0{theirs}": bias, f"{LSTM}.bias_hh_l0{theirs}": np.zeros_like(bias)}
    return result


def _split_crf(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    whole = tensors[TRANSITIONS]
    dense = {name: tensors.get(name) for name in (f"{DENSE}.weight", f"{DENSE}.bias")}
    size = whole.shape[0]
    fits = whole.ndim == 2 and whole.shape[1] == size > 2
    if not fits or any(tensor is None or tensor.shape[0] != size for tensor in dense.values()):
        raise UserError(f"{source}: {TRANSITIONS} {whole.shape} does not belong to {DENSE}; is the checkpoint whole?")
    tags = size - 2
    ours = {"transitions": whole[:tags, :tags].T, "start": whole[:tags, tags], "end": whole[tags + 1, :tags]}
    return {f"heads.crf.{name}": np.ascontiguousarray(tensor) for name, tensor in ours.items()} | {
        name: np.ascontiguousarray(tensor[:tags]) for name, tensor in dense.items()
    }


def _join_biases(tensors: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    for ours, theirs in _DIRECTIONS.items():
        names = [f"{LSTM}.{name}_l0{theirs}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise UserError(f"{source}: {', '.join(missing)} missing; is the checkpoint whole?")
        inner, hidden, first, second = (tensors.pop(name) for name in names)
        joined = {"weight_input": inner, "weight_hidden": hidden, "bias": first + second}
        tensors |= {f"heads.lstm.{ours}.{name}": tensor for name, tensor in joined.items()}
    return tensors
