"""Running an exported MindIR in MindSpore."""

from collections.abc import Mapping
from pathlib import Path

from mindspore import Tensor, nn

from models.common.export.manifest import Manifest
from models.common.export.mindir import load_graph
from models.common.packing import PER_TOKEN
from models.common.runtime.mindspore_runtime import MindSporeRuntime


class MindSporeGraph(MindSporeRuntime):
    """Feature set -> logits, by the MindIR of `manifest`."""

    def __init__(self, manifest: Manifest, file: Path) -> None:
        graph = load_graph(file)
        outputs = {output.name: output.per for output in manifest.outputs}
        network = graph if manifest.packing else _AsPacked(graph, outputs)
        samples = manifest.packing.max_samples_per_row if manifest.packing else 1
        super().__init__(network, outputs, manifest.row_length, manifest.rows, samples)


class _AsPacked(nn.Cell):
    """A graph over padded rows, asked with packed rows of one sample each: its mask is their sequence ids."""

    def __init__(self, graph: nn.Cell, outputs: Mapping[str, str]) -> None:
        super().__init__()
        self.graph, self.pers = graph, tuple(outputs.values())

    def __call__(
        self, input_ids: Tensor, sequence_ids: Tensor, token_type_ids: Tensor, _: Tensor
    ) -> tuple[Tensor, ...]:
        outputs = self.graph(input_ids, sequence_ids, token_type_ids)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(
            output if per == PER_TOKEN else output.expand_dims(1)
            for output, per in zip(outputs, self.pers, strict=True)
        )
