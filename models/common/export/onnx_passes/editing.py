"""New constants and nodes in a graph, with names of their own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


class Editor:
    """Edits one graph. New values are named `<stem>`, `<stem>_1`, ... after what they are for."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.taken = {value.name for node in graph for value in node.outputs}
        self.taken |= {value.name for value in (*graph.inputs, *graph.initializers.values())}

    def constant(self, stem: str, numbers: Any, dtype: type = np.int64) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(np.asarray(numbers, dtype), name=self._name(stem))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def add(
        self, place: ir.Node | None, kind: str, inputs: Sequence[ir.Value | None], stem: str, domain: str = "",
        **attributes: Any,
    ) -> ir.Value:  # fmt: skip
        """A new node directly before `place` (None: at the end); its output."""
        return self.add_several(place, kind, inputs, (stem,), domain, **attributes)[0]

    def add_several(
        self, place: ir.Node | None, kind: str, inputs: Sequence[ir.Value | None], stems: Sequence[str],
        domain: str = "", **attributes: Any,
    ) -> Sequence[ir.Value]:  # fmt: skip
        """A new node with an output for each of `stems`."""
        node = ir.node(kind, inputs, attributes, domain=domain, num_outputs=len(stems))
        for value, stem in zip(node.outputs, stems, strict=True):
            value.name = self._name(stem)
        node.name = f"{kind}_{node.outputs[0].name}"
        if place is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(place, node)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return node.outputs

    def _name(self, stem: str) -> str:
        name, number = stem, 0
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name
