"""Passes over an ONNX file from anywhere, proved equal before it is written: the flow of `fix_onnx` commands.

The graph before and after answers the same random batches in ONNX Runtime, of several sizes where the graph takes any,
with padding where an input says what that is; at real positions the answers must be the same.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from models.common.errors import UserError
from models.common.export.onnx_passes.apply import apply, prepare
from models.common.export.onnx_passes.ascend import unpad_ascend
from models.common.export.onnx_passes.ascend_plain import runnable
from models.common.export.onnx_passes.padding import padding_input, sized
from models.common.export.onnx_passes.recognise import attentions, constant
from models.common.export.onnx_store import load, named, save
from models.common.files import fsync_directory, require_file

# Largest difference allowed for outputs of size 1; it grows with the largest output. Fused and moved sums round
# otherwise by 1e-6; a pass that is wrong is off by 1e-2 and more.
TOLERANCE = 1e-5
SIZES = ((2, 12), (1, 7), (3, 16))  # batches [B, T] for a graph that takes any
ASCEND = unpad_ascend.__name__
WHOLE_TILES = ((2, 32), (1, 16))  # what it can take
RUNS_NOT = "ONNX Runtime cannot run it, or not what the passes make of it"


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
    model = load(require_file(source, "ONNX graph"))
    with named(source, RUNS_NOT, "nothing written", raised_by="onnxruntime"):
        before = session(source)
        if input_shape is not None:
            of_shape(source, model, before, input_shape)
        prepare(model)
        if hidden_size is not None:
            check_size(source, model, hidden_size)
        padding = padding_input(model)
        feeds = list(random_feeds(model, padding, WHOLE_TILES if ASCEND in passes else SIZES))
        mask = None if padding is None else padding.name
        counts = apply(model, passes)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fix-") as scratch:
            made, plain = save(model, Path(scratch) / target.name), runnable(model)
            comparable = made if plain is model else save(plain, Path(scratch) / "plain.onnx")
            compare(source, before, session(comparable[-1]), feeds, mask)
            for file in made:
                file.replace(target.parent / file.name)
            fsync_directory(target.parent)
    return counts


def session(file: Path) -> onnxruntime.InferenceSession:
    """What answers by a graph."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def of_shape(source: Path, model: ir.Model, before: onnxruntime.InferenceSession, input_shape: tuple[int, int]) -> None:
    """Give all inputs the shape [B, T], and the outputs what follows from it; before: answers by the graph as it was.

    Raises `UserError` for a graph that takes other batches only, or inputs that are none of [B, T].
    """
    known: dict[str, int] = {}  # name of a free size -> what it becomes
    for value in model.graph.inputs:
        found = [own if isinstance(own, int) else own.value or "?" for own in value.shape or ()]
        fits = (isinstance(own, str) or own == given for own, given in zip(found, input_shape, strict=False))
        if len(found) != len(input_shape) or not all(fits):
            raise UserError(f"{source}: input {value.name} has the shape {found}, which cannot be {list(input_shape)}; "
                            "see --input_shape")  # fmt: skip
        known |= dict(zip(found, input_shape, strict=True))
        value.shape = ir.Shape(input_shape)
    for value in (value for node in model.graph for value in node.outputs):
        if not value.is_graph_output():
            value.shape = None  # of free sizes; `prepare` says it anew
        elif value.shape is not None:
            value.shape = ir.Shape(
                own if isinstance(own, int) else known.get(own.value, own.value) for own in value.shape
            )
    try:
        before.run(None, {value.name: np.zeros(input_shape, value.dtype.numpy()) for value in model.graph.inputs})
    except Exception:  # of many kinds, from C++
        raise UserError(f"{source}: takes no batch of {list(input_shape)}; see --input_shape") from None


def check_size(source: Path, model: ir.Model, hidden_size: int) -> None:
    """Raise a `UserError` unless all attentions are of this size."""
    widths = {attention.query.dense.weight.shape[0] for attention in attentions(model.graph)}
    if widths != {hidden_size}:
        raise UserError(f"{source}: hidden size {sorted(widths) or 'unknown'}, not {hidden_size}; see --model_size")


def compare(
    source: Path, before: onnxruntime.InferenceSession, after: onnxruntime.InferenceSession,
    feeds: Iterable[Mapping[str, np.ndarray]], mask: str | None,
) -> None:  # fmt: skip
    """Raise a `UserError` unless both graphs answer alike, where the input `mask` is not 0."""
    names = [output.name for output in before.get_outputs()]
    for feed in feeds:
        real = None if mask is None else feed[mask] > 0
        for name, one, other in zip(names, before.run(None, feed), after.run(None, feed), strict=True):
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
