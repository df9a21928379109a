"""Export from a network to a verified folder: the artefact, manifest.json and the vocabulary, all or nothing.

Everything is made in a folder beside the target, verified there, and only then moved into place, the manifest last. So
a target folder never holds an artefact that failed its verification, and a reader who finds a manifest finds the rest.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor, nn

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.export import manifest as contract
from models.common.export.manifest import Manifest
from models.common.export.mindir import PaddedRows, load_graph, write_air, write_mindir
from models.common.export.verify import verify
from models.common.files import atomic_write, fsync_directory, read_json, require_file, sha256_of
from models.common.packing import PER_TOKEN, Samples
from models.common.runtime.mindspore_lite_runtime import MindSporeLiteRuntime
from models.common.runtime.mindspore_runtime import PACKED_INPUTS, MindSporeRuntime
from models.common.weights.canonical import VOCAB_FILE

PADDED_INPUTS = ("input_ids", contract.ATTENTION_MASK, "token_type_ids")


@dataclass(frozen=True)
class Export:
    """What to export.

    network: maps the four packed inputs, int32 [R, T], to `outputs` (name -> per token or sample), in their order;
    built plain. labels: names of the classes in id order. task: the manifest's task block. rows R, row_length T.
    max_samples: most samples a row, None for a graph over padded rows of one sample. precision is float32, as the
    weights of the network are.
    """

    network: nn.Cell
    model: str
    config: EncoderConfig
    task: dict[str, Any]
    outputs: Mapping[str, str]
    labels: tuple[str, ...] | None
    format: str  # "mindir", "mindir_lite" or "air"
    rows: int
    row_length: int
    max_samples: int | None
    vocab: Path
    lower_case: bool
    weights_file: Path


def export(what: Export, target: Path, batches: Mapping[str, Samples] | None) -> Manifest:
    """Write `target` (a .mindir) with its manifest and vocabulary and return the manifest.

    batches: name -> real samples that the verification runs; None leaves it out, and the manifest says so. Raises
    `UserError` when the graph cannot be exported, the artefact cannot be run, or it gives other results than the
    network; `target` is then as it was.
    """
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as name:
        staging = Path(name)
        manifest = _make(what, staging / target.name)
        if batches is not None:
            parity = verify(runtime_of(staging).predict, _reference(what).predict, batches, _reference_name())
            manifest = replace(manifest, parity=parity)
            contract.write_manifest(manifest, staging)
        for file in (target.name, VOCAB_FILE, contract.FILE_NAME):
            (staging / file).replace(target.parent / file)
        fsync_directory(target.parent)
    return manifest


def check_target(target: Path) -> None:
    """Raise a `UserError` when the folder of `target` holds another artefact, which would lose its manifest.json, or
    files of the names to write that are no export."""
    present = target.parent / contract.FILE_NAME
    if not present.is_file():
        for name in (target.name, VOCAB_FILE):
            if (target.parent / name).exists():
                raise UserError(f"{target.parent / name}: is there and no part of an export; choose another folder")
    else:
        values = read_json(present)
        artefact = values.get("artefact") if isinstance(values, dict) else None
        file = artefact.get("file") if isinstance(artefact, dict) else None
        if file != target.name:
            raise UserError(f"{target.parent}: holds the export {file}, and a folder holds one; choose another folder")


def _make(what: Export, artefact: Path) -> Manifest:
    """Write artefact, vocabulary and a manifest without parity into one folder."""
    names = PACKED_INPUTS if what.max_samples else PADDED_INPUTS
    network = what.network if what.max_samples else PaddedRows(what.network, what.row_length, what.outputs)
    shape = (what.rows, what.row_length)
    outputs = _graph_outputs(what)
    shapes = dict.fromkeys(names, shape)
    if what.format == "air":
        written = write_air(network, shapes, artefact)
    else:
        written = write_mindir(network, shapes, artefact, lite=what.format == "mindir_lite")
    vocab = artefact.with_name(VOCAB_FILE)
    with atomic_write(vocab) as temporary:
        shutil.copyfile(require_file(what.vocab, "vocabulary"), temporary)
    highest = {"input_ids": what.config.vocab_size - 1, "token_type_ids": what.config.type_vocab_size - 1}
    manifest = Manifest(
        model=contract.Model(what.model, what.config.to_dict()),
        task=what.task,
        artefact=contract.Artefact(artefact.name, what.format, written.version, sha256_of(artefact), _producer()),
        precision="float32",
        packing=contract.Packing(what.row_length, what.max_samples) if what.max_samples else None,
        sample_inputs=tuple(
            contract.SampleInput(name, f"{index:02}_data", "int32", (what.row_length,), (0, highest.get(name, 1)))
            for index, name in enumerate(PADDED_INPUTS)
        ),
        inputs=tuple(contract.GraphInput(name, "int32", shape, name) for name in written.inputs),
        outputs=outputs,
        labels=what.labels,
        tokenizer=contract.Tokenizer(VOCAB_FILE, sha256_of(vocab), what.lower_case),
        source_weights=contract.SourceWeights(what.weights_file.name, sha256_of(what.weights_file)),
        parity=None,
    )
    contract.write_manifest(manifest, artefact.parent)
    return manifest


def _graph_outputs(what: Export) -> tuple[contract.GraphOutput, ...]:
    """Shapes and dtypes as the network gives them, with the inputs of `_reference`, for which it is compiled anyway."""
    what.network.set_train(False)
    outputs = what.network(*[Tensor(np.zeros((what.rows, what.row_length), np.int32))] * len(PACKED_INPUTS))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tuple(
        contract.GraphOutput(name, output.asnumpy().dtype.name, _graph_shape(what, output.shape, per), per)
        for (name, per), output in zip(what.outputs.items(), outputs, strict=True)
    )


def _graph_shape(what: Export, shape: tuple[int, ...], per: str) -> tuple[int, ...]:
    """Without the axis of samples where `PaddedRows` takes it off."""
    return shape if what.max_samples or per == PER_TOKEN else (shape[0], *shape[2:])


def _producer() -> str:
    return f"mindspore {mindspore.__version__}"


def _reference_name() -> str:
    return f"{_producer()} {mindspore.get_context('device_target')}"


def _reference(what: Export) -> MindSporeRuntime:
    """The network itself, one sample a row, so that packing is verified too."""
    return MindSporeRuntime(what.network, what.outputs, what.row_length, what.rows, max_samples=1)


def runtime_of(folder: Path) -> MindSporeRuntime | MindSporeLiteRuntime:
    """What runs the artefact that was exported into `folder`, from its file; a `UserError` where nothing can."""
    manifest = contract.read_manifest(folder)
    kind = manifest.artefact.format
    if kind == "mindir_lite":
        return MindSporeLiteRuntime(folder)
    if kind != "mindir":
        raise UserError(f"{folder}: holds {kind}, which nothing here can run; export MINDIR or MINDIR_LITE")
    graph = load_graph(folder / manifest.artefact.file)
    outputs = {output.name: output.per for output in manifest.outputs}
    network = graph if manifest.packing else _AsPacked(graph, outputs)
    samples = manifest.packing.max_samples_per_row if manifest.packing else 1
    return MindSporeRuntime(network, outputs, manifest.row_length, manifest.rows, samples)


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
