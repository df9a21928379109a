"""ONNX graphs as files: what any exporter wrote, its weights in the file or beside it, and what we write of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import version_converter

from models.common.errors import UserError, clip
from models.common.export.onnx_graph.graph import OPSET

LARGEST = 2_000_000_000  # bytes of weights in one file: protobuf takes 2 GiB, and the graph needs some of them
SCORES_RANK = 4  # of an attention: [B, N, T, T]


def load(source: Path) -> ir.Model:
    """A checked graph with all its weights in memory, of `OPSET` or later: what the passes write needs that.

    An older graph is brought to `OPSET`, and a line on the screen says so. Raises `UserError` for what cannot be read
    or converted.
    """
    with named(source, "is no ONNX graph that can be read", "export it again"):
        onnx.checker.check_model(str(source))  # by its path: weights may lie beside it
        model = ir.load(str(source))
        ir.external_data.load_to_model(model)
    opset = model.opset_imports.get("", OPSET)
    if opset >= OPSET:
        return model
    for node in model.graph:
        if node.op_type == "Softmax" and node.attributes.get_int("axis", 1) == SCORES_RANK - 1:
            node.attributes["axis"] = ir.AttrInt64("axis", -1)  # or the converter flattens what it does not know to fit
    with named(source, f"of opset {opset}, which cannot be brought to {OPSET}", f"export it with opset {OPSET}"):
        model = ir.from_proto(version_converter.convert_version(ir.to_proto(model), OPSET))
    print(f"{source}: opset {opset}, brought to {OPSET}", flush=True)
    return model


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a graph with its weights in one file, or those beside it in a second one where one cannot hold them; the
    files, the graph last."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    beside = path.with_name(f"{path.name}.data") if size > LARGEST else None
    ir.save(model, str(path), external_data=beside and beside.name)
    return [beside, path] if beside else [path]


@contextmanager
def named(source: Path, problem: str, advice: str, raised_by: str = "") -> Iterator[None]:
    """What goes wrong inside, in the package `raised_by` if one is said, is a `UserError` about `source`."""
    try:
        yield
    except Exception as error:  # of many kinds, from C++ and protobuf
        if not type(error).__module__.startswith(raised_by):
            raise
        reason = clip(str(error).strip().partition("\n")[0])
        raise UserError(f"{source}: {problem} ({reason}); {advice}") from None
