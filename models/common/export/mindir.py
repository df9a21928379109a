"""A network to a MindIR file of static shape and back. Shapes: R rows, T tokens a row."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

from models.common.errors import UserError
from models.common.export.manifest import PACKED_INPUTS, PADDED_INPUTS, GraphInput, GraphOutput
from models.common.export.mindir_lite import lower
from models.common.export.written import Written
from models.common.files import atomic_write, require_file
from models.common.packing import PER_SAMPLE

# MindSpore gives what it exports mode 0400, so a second export into the same place or a clean-up fails.
FILE_MODE = 0o644
PROTOBUF_LIMIT = 2**31 - 2**20  # a message ends below 2 GiB; the graph itself takes less than the MiB left for it


class PaddedRows(nn.Cell):
    """A network over packed rows, asked as the originals are: one sample a row, int32 [R, T] each of input_ids,
    attention_mask, token_type_ids. An output per sample, [R, 1, ...], loses its axis of samples."""

    def __init__(self, network: nn.Cell, row_length: int, outputs: Mapping[str, str]) -> None:
        """outputs: name -> per token or sample, in the network's order."""
        super().__init__(auto_prefix=False)
        self.network = network
        self.pers = tuple(outputs.values())
        self.position_ids = Tensor(np.arange(row_length, dtype=np.int32)[None])  # [1, T]

    def construct(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """int32 [R, T] each; a row is one sample, so its mask is its sequence ids."""
        outputs = self.network(input_ids, attention_mask, token_type_ids, self.position_ids)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        result = ()
        for k in range(len(self.pers)):  # not zip: a graph knows no `strict`
            output = outputs[k]
            if self.pers[k] == PER_SAMPLE:
                output = ops.reshape(output, (output.shape[0], *output.shape[2:]))
            result = (*result, output)
        return result


def writer(
    network: nn.Cell, outputs: Mapping[str, str], rows: int, row_length: int, packed: bool, kind: str
) -> Callable[[Path], Written]:
    """What writes `network` as "mindir", "mindir_lite" or "air", of the shape [rows, row_length].

    outputs: name -> per token or sample, in the network's order; packed: rows of several samples.
    """
    names = PACKED_INPUTS if packed else PADDED_INPUTS
    asked = network if packed else PaddedRows(network, row_length, outputs)
    shape = (rows, row_length)

    def write(path: Path) -> Written:
        found = _outputs(network, outputs, shape, packed)
        shapes = dict.fromkeys(names, shape)
        if kind == "air":
            version, read = write_air(asked, shapes, path)
        else:
            version, read = write_mindir(asked, shapes, path, lite=kind == "mindir_lite")
        inputs = tuple(GraphInput(name, "int32", shape, name) for name in read)
        return Written(version, f"mindspore {mindspore.__version__}", inputs, found)

    return write


def _outputs(
    network: nn.Cell, outputs: Mapping[str, str], shape: tuple[int, int], packed: bool
) -> tuple[GraphOutput, ...]:
    """Shapes and dtypes as the network gives them, with packed inputs: verification compiles it for these anyway."""
    network.set_train(False)
    values = network(*[Tensor(np.zeros(shape, np.int32))] * len(PACKED_INPUTS))
    values = values if isinstance(values, tuple) else (values,)
    return tuple(
        # `PaddedRows` takes the axis of samples off.
        GraphOutput(name, value.asnumpy().dtype.name,
                    value.shape if packed or per != PER_SAMPLE else (value.shape[0], *value.shape[2:]), per)
        for (name, per), value in zip(outputs.items(), values, strict=True)
    )  # fmt: skip


def write_mindir(
    network: nn.Cell, input_shapes: Mapping[str, tuple[int, ...]], path: Path, lite: bool
) -> tuple[int, tuple[str, ...]]:
    """Export `network` (int32 inputs of `input_shapes`, in the order of its `construct`).

    Returns the MindIR version and the names of the inputs (lowered, of those that it reads). lite: lower the graph to
    what MindSpore Lite 2.0 loads. Raises `UserError` where that is impossible, and when the
    exported graph's inputs are not exactly `input_shapes`.
    """
    network.set_train(False)
    inputs = [Tensor(np.zeros(shape, np.int32)) for shape in input_shapes.values()]
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "graph.mindir"
        mindspore.export(network, *inputs, file_name=str(exported), file_format="MINDIR")
        model = _read_export(exported)
    found = _inputs(model)
    if found != dict(input_shapes):
        raise UserError(f"the graph has the inputs {found}, wanted are {dict(input_shapes)}")
    if lite:
        lower(model)
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        temporary.chmod(FILE_MODE)
    return model.mind_ir_version, tuple(_inputs(model))


def _inputs(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the graph's inputs."""
    # "<id>_<function>:<name>": Lite and MindSpore both call the input by what follows the colon.
    return {value.name.rpartition(":")[2]: tuple(value.tensor[0].dims) for value in model.graph.input}


def write_air(network: nn.Cell, input_shapes: Mapping[str, tuple[int, ...]], path: Path) -> tuple[int, tuple[str, ...]]:
    """Export `network` as AIR, which only MindSpore on an Ascend device writes; its version is 1, it has no others.

    Never run: no such device was at hand.
    """
    network.set_train(False)
    inputs = [Tensor(np.zeros(shape, np.int32)) for shape in input_shapes.values()]
    with tempfile.TemporaryDirectory() as folder:
        mindspore.export(network, *inputs, file_name=str(Path(folder) / "graph"), file_format="AIR")
        with atomic_write(path) as temporary:
            temporary.write_bytes((Path(folder) / "graph.air").read_bytes())
            temporary.chmod(FILE_MODE)
    return 1, tuple(input_shapes)


def _read_export(path: Path) -> ModelProto:
    """The protobuf of what `mindspore.export` wrote as `path`.

    From 1 GB on MindSpore puts the weights into files of their own, which Lite does not read; here they come together
    again.
    """
    if path.is_file():
        return ModelProto.FromString(path.read_bytes())
    model = ModelProto.FromString(path.with_name(f"{path.stem}_graph.mindir").read_bytes())
    size = sum(tensor.external_data.length for tensor in model.graph.parameter)
    if size > PROTOBUF_LIMIT:
        raise UserError(f"the weights take {size} bytes; a MindIR file holds {PROTOBUF_LIMIT} at most")
    for tensor in model.graph.parameter:
        with (path.parent / tensor.external_data.location).open("rb") as file:
            file.seek(tensor.external_data.offset)
            tensor.raw_data = file.read(tensor.external_data.length)
        tensor.ClearField("external_data")
    return model


def load_graph(path: Path | str) -> nn.Cell:
    """A MindIR file as a cell that this MindSpore runs; a `UserError` where it is broken, or of another MindSpore."""
    file = require_file(path, "MindIR")
    try:
        graph = mindspore.load(str(file))
    except Exception as error:  # of many kinds, from C++, with its call stack
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{file}: MindSpore {mindspore.__version__} cannot load it ({reason}); export again") from None
    return nn.GraphCell(graph)
