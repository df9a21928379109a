"""Passes over an ONNX file from anywhere, proved equal before it is written: the flow of `fix_onnx` commands.

The graph before and after answers the same random batches in ONNX Runtime, of several sizes where the graph takes any,
with padding where an input says what that is; at real positions the answers must be the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from models.common.errors import UserError
from models.common.export.onnx_passes.apply import apply, prepare
from models.common.export.onnx_passes.ascend import unpad_ascend
from models.common.export.onnx_passes.ascend_plain import runnable
from models.common.export.onnx_passes.padding import padding_input, sized
from models.common.export.onnx_passes.recognise import attentions, constant
from models.common.files import atomic_write, require_file

# Largest difference allowed for outputs of size 1; it grows with the largest output. Fused and moved sums round
# otherwise by 1e-6; a pass that is wrong is off by 1e-2 and more.
TOLERANCE = 1e-5
SIZES = ((2, 12), (1, 7), (3, 16))  # batches [B, T] for a graph that takes any
ASCEND = unpad_ascend.__name__
WHOLE_TILES = ((2, 32), (1, 16))  # what it can take


def fix(
    source: Path,
    target: Path,
    passes: Sequence[str],
    hidden_size: int | None = None,
    input_shape: tuple[int, int] | None = None,
) -> dict[str, int]:
    """Write `source` changed by `passes` as `target`; how many places each found.

    hidden_size: what the graph must have, where it is said. input_shape: [B, T] of the only batches that the result
    takes. Raises `UserError` for a file that is no such graph, a pass that finds nothing, and answers that differ;
    nothing is then written.
    """
    data = require_file(source, "ONNX graph").read_bytes()
    if input_shape is not None:
        data = of_shape(source, data, input_shape)
    model = load(source, data)
    if hidden_size is not None:
        widths = {attention.query.dense.weight.shape[0] for attention in attentions(model.graph)}
        if widths != {hidden_size}:
            raise UserError(f"{source}: hidden size {sorted(widths) or 'unknown'}, not {hidden_size}; see --model_size")
    padding = padding_input(model)
    feeds = list(random_feeds(model, padding, WHOLE_TILES if ASCEND in passes else SIZES))
    mask = None if padding is None else padding.name
    counts = apply(model, passes)
    changed = ir.to_proto(model).SerializeToString()
    compare(source, data, ir.to_proto(runnable(model)).SerializeToString(), feeds, mask)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.write_bytes(changed)
    return counts


def of_shape(source: Path, data: bytes, input_shape: tuple[int, int]) -> bytes:
    """The graph with [B, T] for all inputs, and what its outputs then are.

    Raises `UserError` for a graph that takes other batches only, or inputs that are none of [B, T].
    """
    with readable(source):
        model = onnx.load_from_string(data)
    known: dict[str, int] = {}  # name of a free size -> what it becomes
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        found = [size.dim_param or size.dim_value or "?" for size in sizes]
        fits = (isinstance(own, str) or own == given for own, given in zip(found, input_shape, strict=False))
        if len(found) != len(input_shape) or not all(fits):
            raise UserError(f"{source}: input {value.name} has the shape {found}, which cannot be {list(input_shape)}; "
                            "see --input_shape")  # fmt: skip
        for size, given in zip(sizes, input_shape, strict=True):
            known[size.dim_param] = given
            size.dim_value = given
    for value in model.graph.output:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param in known:
                size.dim_value = known[size.dim_param]
    del model.graph.value_info[:]  # shapes of free sizes; `prepare` says them anew
    fixed = model.SerializeToString()
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    feed = {name: np.zeros(input_shape, onnx.helper.tensor_dtype_to_np_dtype(kind)) for name, kind in kinds.items()}
    try:
        onnxruntime.InferenceSession(fixed, providers=["CPUExecutionProvider"]).run(None, feed)
    except Exception:  # of many kinds, from C++
        raise UserError(f"{source}: takes no batch of {list(input_shape)}; see --input_shape") from None
    return fixed


def load(source: Path, data: bytes) -> ir.Model:
    """A checked graph in a state that passes can read."""
    with readable(source):
        proto = onnx.load_from_string(data)
        onnx.checker.check_model(proto)
        model = ir.from_proto(proto)
        prepare(model)
    return model


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """What goes wrong inside means that `source` is no graph."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many kinds, from C++ and protobuf
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{source}: is no ONNX graph that can be read ({reason}); export it again") from None


def compare(
    source: Path, before: bytes, after: bytes, feeds: Iterable[Mapping[str, np.ndarray]], mask: str | None
) -> None:
    """Raise a `UserError` unless both graphs answer alike, where the input `mask` is not 0."""
    sessions = [onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]) for data in (before, after)]
    for feed in feeds:
        real = None if mask is None else feed[mask] > 0
        for name, one, other in zip(
            [output.name for output in sessions[0].get_outputs()], *(session.run(None, feed) for session in sessions),
            strict=True,
        ):  # fmt: skip
            if real is not None and one.shape[:2] == real.shape == other.shape[:2]:
                one, other = one[real], other[real]
            same = one.shape == other.shape
            worst = np.abs(one.astype(np.float64) - other).max(initial=0.0) if same else np.inf
            # `not <=`: a NaN differs too.
            if not worst <= TOLERANCE * max(1.0, np.abs(one).max(initial=0.0)):
                raise UserError(f"{source}: changed, it gives another {name} (off by {worst:.3g}); nothing written")


def random_feeds(
    model: ir.Model, padding: ir.Value | None, batches: Sequence[tuple[int, int]]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Inputs of the graph: ids that its tables have, and padding."""
    rng = np.random.default_rng(0)
    free = any(not isinstance(size, int) for value in model.graph.inputs for size in value.shape)
    for sizes in batches if free else batches[:1]:
        shapes = {value.name: sized(value, sizes) for value in model.graph.inputs}
        feed = {
            value.name: rng.integers(0, _rows(value), shapes[value.name]).astype(value.dtype.numpy())
            for value in model.graph.inputs
        }
        if padding is not None:
            rows, length = shapes[padding.name]
            lengths = rng.integers(1, length + 1, (rows, 1))
            lengths[0] = length
            feed[padding.name] = (np.arange(length) < lengths).astype(padding.dtype.numpy())
        yield feed


def _rows(value: ir.Value) -> int:
    """How many different ids an input may hold: the rows of the table that it points into, else 2."""
    tables = [constant(node.inputs[0]) for node in value.consumers() if node.op_type == "Gather"]
    return min((table.shape[0] for table in tables if table is not None), default=2)
