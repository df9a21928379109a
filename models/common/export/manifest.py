"""manifest.json: what lies beside every exported artefact and says how to feed it. Needs no framework.

Python and the C++ program of ascend310_infer read the same file and both refuse input that does not match it. A sample
is what the input folder holds (no row, no batch); a graph input is what the runtime is given:

    sample_inputs   one file each per sample, [T] or [T, ...], axis 0 = tokens, padded with 0 at the end
    inputs          [R, T] or [R, T, ...] rows of the graph. `source` names the sample input that is copied token by
                    token, or one of COMPUTED_SOURCES. `packing` null: a row is one sample, as it is
    outputs         `per` token: [R, T, ...], cut apart by sample; `per` sample: [R, S, ...] (packed) or [R, ...]

Inputs and outputs are bound by name, never by position; artefacts whose format carries no output names list them in
the manifest's order.
"""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.export.typed_json import convert
from models.common.files import read_json, sha256_of, write_json
from models.common.packing import PER_SAMPLE, PER_TOKEN

MANIFEST_VERSION = 1
FILE_NAME = "manifest.json"
FORMATS = ("mindir", "mindir_lite", "air", "onnx")
DTYPES = ("int32", "int64", "float32", "float16")
ATTENTION_MASK = "attention_mask"
# Made by whoever packs: which sample of the row a token belongs to (0 = padding) and its place inside that sample.
COMPUTED_SOURCES = ("sequence_ids", "position_ids", ATTENTION_MASK)
# What a graph over padded rows, and one over packed rows, is given, in this order.
PADDED_INPUTS = ("input_ids", ATTENTION_MASK, "token_type_ids")
PACKED_INPUTS = ("input_ids", "sequence_ids", "token_type_ids", "position_ids")
DYNAMIC = -1  # a size of an ONNX graph that each batch chooses


@dataclass(frozen=True)
class Model:
    """Which network, and its configuration in Hugging Face's spelling."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Artefact:
    """The exported file. `ir_version` is the MindIR version or the ONNX opset; `producer` what wrote it."""

    file: str
    format: str
    ir_version: int
    sha256: str
    producer: str


@dataclass(frozen=True)
class Packing:
    """Several samples share one row of `row_length` tokens, at most `max_samples_per_row` of them."""

    row_length: int
    max_samples_per_row: int


@dataclass(frozen=True)
class SampleInput:
    """One file per sample in `folder`: `shape` without a batch axis; `range` is lowest and highest value allowed."""

    name: str
    folder: str
    dtype: str
    shape: tuple[int, ...]
    range: tuple[int, int] | None


@dataclass(frozen=True)
class GraphInput:
    """One input of the graph, rows first, and where its values come from. Of ONNX, -1 stands for any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class GraphOutput:
    """One output of the graph, rows first, and whether it speaks of tokens or of samples."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    per: str


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary that lies beside the artefact."""

    file: str
    sha256: str
    lower_case: bool


@dataclass(frozen=True)
class SourceWeights:
    """The weights file the artefact was made of (name only: paths mean nothing on another machine)."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Parity:
    """What the verification measured: largest absolute difference to `reference` at real tokens, for each output."""

    reference: str
    tolerance: float
    max_abs_difference: dict[str, float]
    batches: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """Questions or features: the name of the file or folder, and what tells it from others of that name."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Quantization:
    """How an int8 artefact was made, and what that cost; results depend on all of it.

    in_float: weights that stayed float32; calibration_data: None where no samples told the ranges; bytes: of the file
    before and after; metric: before and after, in per cent, on the `samples` samples of `data`; padding: how they were
    batched, which dynamic ranges see; cpu_flags: of the machine that measured.
    """

    method: str
    reduce_range: bool
    in_float: tuple[str, ...]
    calibration_data: Data | None
    calibration_samples: int
    bytes_before: int
    bytes_after: int
    metric: str
    metric_before: float
    metric_after: float
    max_drop: float
    data: Data
    samples: int
    padding: str
    cpu_flags: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The whole file. `task` holds name, max_seq_length and further scalars that only that task's decoder reads."""

    model: Model
    task: dict[str, Any]
    artefact: Artefact
    precision: str
    packing: Packing | None
    sample_inputs: tuple[SampleInput, ...]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
    labels: tuple[str, ...] | None
    tokenizer: Tokenizer | None
    source_weights: SourceWeights
    parity: Parity | None
    quantization: Quantization | None = None
    manifest_version: int = field(default=MANIFEST_VERSION)

    @property
    def rows(self) -> int:
        """Rows of a batch of the graph; -1 for any."""
        return self.inputs[0].shape[0]

    @property
    def row_length(self) -> int:
        """Tokens of a row of the graph; -1 for any."""
        return self.inputs[0].shape[1]


def write_manifest(manifest: Manifest, folder: Path | str) -> Path:
    """Validate `manifest` and write it atomically to `folder`/manifest.json; returns the file's path."""
    path = Path(folder) / FILE_NAME
    problems = consistency_problems(manifest)
    if problems:
        raise UserError(_listed(path, problems))
    values = dataclasses.asdict(manifest)
    write_json(path, {"manifest_version": values.pop("manifest_version"), **values})
    return path


def read_manifest(path: Path | str, check_files: bool = True) -> Manifest:
    """Read and validate a manifest (or the one in a folder).

    With `check_files` the artefact and the vocabulary must lie beside it with the recorded SHA-256. Raises one
    `UserError` that lists every problem found.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    manifest = parse_manifest(read_json(path), str(path))
    problems = file_problems(manifest, path.parent) if check_files else []
    if problems:
        raise UserError(_listed(path, problems))
    return manifest


def parse_manifest(values: Any, source: str) -> Manifest:
    """Build a Manifest from parsed JSON; unknown and missing keys, wrong types and contradictions come all at once."""
    problems: list[str] = []
    if isinstance(values, dict) and values.get("manifest_version", MANIFEST_VERSION) != MANIFEST_VERSION:
        # Another version has other keys: complaining about each of them would hide the reason.
        raise UserError(
            f"{source}: manifest_version {values['manifest_version']!r} is not {MANIFEST_VERSION}; export again"
        )
    manifest = convert(values, Manifest, "", problems)
    if not problems:
        problems += consistency_problems(manifest)
    if problems:
        raise UserError(_listed(source, problems))
    return manifest


def _listed(source: Path | str, problems: list[str]) -> str:
    return f"{source}: {len(problems)} problem(s):" + "".join(f"\n  - {problem}" for problem in problems)


# --- what must hold between the keys -----------------------------------------------------------------------------


def consistency_problems(manifest: Manifest) -> list[str]:
    """Everything that contradicts itself in a manifest whose types are right."""
    return [
        *_header_problems(manifest),
        *_sample_problems(manifest),
        *_graph_problems(manifest),
        *_parity_problems(manifest),
    ]


def _header_problems(manifest: Manifest) -> list[str]:
    problems = []
    artefact, task, packing = manifest.artefact, manifest.task, manifest.packing
    if manifest.manifest_version != MANIFEST_VERSION:
        problems.append(f"manifest_version must be {MANIFEST_VERSION}, got {manifest.manifest_version}")
    try:
        EncoderConfig.from_dict(manifest.model.config, "model.config")
    except UserError as error:
        problems.append(str(error))
    if not isinstance(task.get("name"), str):
        problems.append(f"task.name must be a str, got {task.get('name')!r}")
    if type(task.get("max_seq_length")) is not int or task["max_seq_length"] < 1:
        problems.append(f"task.max_seq_length must be a positive int, got {task.get('max_seq_length')!r}")
    problems += [f"task.{key} must be a scalar" for key, value in task.items() if isinstance(value, (dict, list))]
    if artefact.format not in FORMATS:
        problems.append(f"artefact.format {artefact.format!r} is unknown; one of {', '.join(FORMATS)}")
    if manifest.quantization and artefact.format != "onnx":
        problems.append("quantization is of ONNX graphs alone")
    if artefact.ir_version < 1:
        problems.append(f"artefact.ir_version must be positive, got {artefact.ir_version}")
    if packing and (packing.row_length < 1 or packing.max_samples_per_row < 1):
        problems.append("packing.row_length and packing.max_samples_per_row must be positive")
    files = {"artefact": artefact, "tokenizer": manifest.tokenizer, "source_weights": manifest.source_weights}
    for key, block in files.items():
        if block is None:
            continue
        # A manifest from elsewhere must not make a program open a file outside its folder.
        if PurePath(block.file).name != block.file or "\\" in block.file:
            problems.append(f"{key}.file must be a bare file name, got {block.file!r}")
        if not re.fullmatch("[0-9a-f]{64}", block.sha256):
            problems.append(f"{key}.sha256 must be 64 hexadecimal digits, got {block.sha256!r}")
    return problems


def _sample_problems(manifest: Manifest) -> list[str]:
    problems = _tensor_problems("sample_inputs", manifest.sample_inputs)
    problems += _repeated("sample_inputs folder", [sample.folder for sample in manifest.sample_inputs])
    limit = manifest.packing.row_length if manifest.packing else None
    for sample in manifest.sample_inputs:
        if not re.fullmatch(r"[0-9]{2}_data", sample.folder):
            problems.append(f"sample_inputs {sample.name}: folder {sample.folder!r} is not of the form 00_data")
        if sample.range and sample.range[0] > sample.range[1]:
            problems.append(f"sample_inputs {sample.name}: range {list(sample.range)} is empty")
        if limit and sample.shape and sample.shape[0] > limit:
            problems.append(f"sample_inputs {sample.name}: {sample.shape[0]} tokens do not fit a row of {limit}")
    if manifest.packing and ATTENTION_MASK not in {sample.name for sample in manifest.sample_inputs}:
        problems.append(f"sample_inputs {ATTENTION_MASK} is missing: packing takes the length of a sample from it")
    return problems


def _graph_problems(manifest: Manifest) -> list[str]:
    dynamic = manifest.artefact.format == "onnx"
    problems = _tensor_problems("inputs", manifest.inputs, dynamic)
    problems += _tensor_problems("outputs", manifest.outputs, dynamic)
    samples = {sample.name: sample for sample in manifest.sample_inputs}
    sources = {*samples, *COMPUTED_SOURCES}
    first = manifest.inputs[0].shape[:2] if manifest.inputs else ()
    for tensor in manifest.inputs:
        where = f"inputs {tensor.name}"
        sample = samples.get(tensor.source)
        if tensor.source not in sources:
            problems.append(f"{where}: source {tensor.source!r} is no sample input and none of {COMPUTED_SOURCES}")
        if len(tensor.shape) < 2 or tensor.shape[:2] != first:
            problems.append(f"{where}: shape {list(tensor.shape)} must begin with the rows and tokens {list(first)}")
        if sample and sample.shape[1:] != tensor.shape[2:]:
            problems.append(f"{where}: shape {list(tensor.shape)} does not hold samples of {list(sample.shape)}")
        if sample and not manifest.packing and sample.shape != tensor.shape[1:] and tensor.shape[1] != DYNAMIC:
            problems.append(f"{where}: without packing a row must be one sample of {list(sample.shape)}")
    if manifest.packing and first and first[-1] not in (manifest.packing.row_length, DYNAMIC):
        problems.append(f"packing.row_length {manifest.packing.row_length} is not the {first[-1]} tokens of the inputs")
    if manifest.packing and "sequence_ids" not in {tensor.source for tensor in manifest.inputs}:
        problems.append("inputs: packing needs an input with source sequence_ids")
    for tensor in manifest.outputs:
        if tensor.per not in (PER_TOKEN, PER_SAMPLE):
            problems.append(f"outputs {tensor.name}: per {tensor.per!r} is neither {PER_TOKEN} nor {PER_SAMPLE}")
        leading = tensor.shape[:2] if tensor.per == PER_TOKEN else tensor.shape[:1]
        if first and leading != first[: len(leading)]:
            problems.append(f"outputs {tensor.name}: shape {list(tensor.shape)} must begin with {list(first)}")
    return problems


def _parity_problems(manifest: Manifest) -> list[str]:
    if manifest.parity is None:
        return []
    measured, wanted = manifest.parity.max_abs_difference, [tensor.name for tensor in manifest.outputs]
    problems = []
    if sorted(measured) != sorted(wanted):
        problems.append(f"parity.max_abs_difference has {sorted(measured)}, the outputs are {sorted(wanted)}")
    # `not <=` and not `>`: a NaN is a failure too.
    problems += [
        f"parity: {name} differs by {value:g}, more than the tolerance {manifest.parity.tolerance:g}"
        for name, value in measured.items()
        if not value <= manifest.parity.tolerance
    ]
    return problems


def _tensor_problems(key: str, tensors: tuple, dynamic: bool = False) -> list[str]:
    problems = [] if tensors else [f"{key} is empty"]
    problems += _repeated(f"{key} name", [tensor.name for tensor in tensors])
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            problems.append(f"{key} {tensor.name}: dtype {tensor.dtype!r} is unknown; one of {', '.join(DTYPES)}")
        if not tensor.shape or any(size < 1 and not (dynamic and size == DYNAMIC) for size in tensor.shape):
            problems.append(f"{key} {tensor.name}: shape {list(tensor.shape)} must hold positive sizes")
    return problems


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"{what} {name!r} occurs {count} times" for name, count in Counter(names).items() if count > 1]


# --- against the world -------------------------------------------------------------------------------------------


def file_problems(manifest: Manifest, folder: Path) -> list[str]:
    """Artefact and vocabulary that are not in `folder`, or not the ones that were exported."""
    problems = []
    for block in (manifest.artefact, manifest.tokenizer):
        if block is None:
            continue
        path = folder / block.file
        if not path.is_file():
            problems.append(f"{block.file} is not in {folder}")
        elif sha256_of(path) != block.sha256:
            problems.append(f"{block.file} is not the file that was exported (its SHA-256 differs)")
    return problems


def check_samples(manifest: Manifest, samples: dict[str, np.ndarray]) -> None:
    """Refuse arrays [N, *shape] that do not match the manifest's sample inputs; one `UserError` lists every problem."""
    wanted = {sample.name: sample for sample in manifest.sample_inputs}
    problems = [f"input {name} is missing" for name in wanted if name not in samples]
    problems += [f"input {name} is unknown to the manifest" for name in samples if name not in wanted]
    if len({len(array) for array in samples.values()}) > 1:
        problems.append("inputs differ in their number of samples")
    for name, sample in wanted.items():
        array = samples.get(name)
        if array is None:
            continue
        if array.dtype != np.dtype(sample.dtype):
            problems.append(f"input {name}: dtype {array.dtype}, the manifest says {sample.dtype}")
        if array.shape[1:] != sample.shape:
            problems.append(f"input {name}: shape {list(array.shape[1:])}, the manifest says {list(sample.shape)}")
        if sample.range and array.size and not (sample.range[0] <= array.min() and array.max() <= sample.range[1]):
            found = f"{array.min()}..{array.max()}"
            problems.append(f"input {name}: values {found}, the manifest allows {sample.range[0]}..{sample.range[1]}")
    if problems:
        raise UserError(_listed("input does not match the manifest", problems))
