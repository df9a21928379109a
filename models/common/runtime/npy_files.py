"""The folders around ais_bench (the originals' layout): a batch of rows is a file. Needs no framework.

    <inputs>/<input>/<index>.npy     [B, T] of the graph's type (int64), a folder for each graph input, indices from 0
    <results>/<index>_<k>.npy        output k of the graph, from 0: [B, T, ...] per token, [B, ...] per sample

B rows of the batch, T tokens of a row. Of a graph of fixed shape a file holds one row; ais_bench --batchsize puts
together as many as the graph takes, and cuts the results apart again.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import DYNAMIC, PACKED_INPUTS, PADDED_INPUTS, PER_TOKEN, GraphOutput, Manifest
from models.common.npy_file import open_npy
from models.common.packing import Row, Samples, pack
from models.common.progress import track
from models.common.runtime.folders import replaced_folders
from models.common.runtime.offline import task_setting
from models.common.runtime.onnx_batches import feed_of, own_values, plan_graph_rows

INPUT_FOLDERS = {*PADDED_INPUTS, *PACKED_INPUTS}  # that a former run may have left, for a graph with other inputs

File = tuple[list[Row], int]  # the samples of its rows, and the tokens of a row


@dataclass(frozen=True)
class FileLayout:
    """How samples are dealt to files: rows of a file, and whether rows have the model's length or the file's longest.

    The names are those of the original's flags.
    """

    per_device_eval_batch_size: int
    pad_to_max_length: bool

    def check(self, manifest: Manifest) -> None:
        """Raise a `UserError` where the graph's shape is fixed to another."""
        rows, length, wanted = manifest.rows, manifest.row_length, self.per_device_eval_batch_size
        if length != DYNAMIC and not self.pad_to_max_length:
            raise UserError(f"the graph takes rows of {length} tokens and no others; give --pad_to_max_length")
        if rows != DYNAMIC and wanted > 1:
            raise UserError(
                f"--per_device_eval_batch_size {wanted}: the graph takes {rows} rows at a time, which ais_bench "
                f"--batchsize {rows} puts together from files of one row; leave the flag out"
            )


def plan_files(manifest: Manifest, lengths: np.ndarray, layout: FileLayout) -> list[File]:
    """Deal samples of the given lengths [N] to files; those that are not packed keep their order."""
    rows = plan_graph_rows(lengths, manifest, None if manifest.packing else np.arange(len(lengths)))
    longest = manifest.packing.row_length if manifest.packing else task_setting(manifest, "max_seq_length")
    size = layout.per_device_eval_batch_size
    return [
        (batch, longest if layout.pad_to_max_length else max(int(lengths[list(row)].sum()) for row in batch))
        for batch in (rows[first : first + size] for first in range(0, len(rows), size))
    ]


@contextlib.contextmanager
def input_folders(manifest: Manifest, folder: Path) -> Iterator[dict[str, Path]]:
    """Yield an empty folder for each input of the graph; when the block ends they replace those below `folder`.

    Raises `UserError` when one of those holds files that preprocess did not write.
    """
    names = [tensor.name for tensor in manifest.inputs]
    wrong = [name for name in names if not re.fullmatch(r"\w+", name)]
    if wrong:
        raise UserError(f"manifest, inputs: {wrong[0]!r} cannot be the name of a folder; export the model again")
    targets, others = ([folder / name for name in some] for some in (names, INPUT_FOLDERS.difference(names)))
    with replaced_folders(targets, r"\d+\.npy", "--save_dir", others) as staging:
        yield dict(zip(names, staging, strict=True))


def write_inputs(manifest: Manifest, samples: Samples, plan: list[File], folders: Mapping[str, Path]) -> None:
    """Write all files of the plan into the folder of each graph input.

    Raises `UserError` when the samples hold ids that the graph does not know.
    """
    _check_ranges(manifest, samples)
    for index, (rows, length) in enumerate(track(plan, "write files", len(plan), "files")):
        feed = feed_of(manifest, pack(samples, rows, length).arrays)
        for name, folder in folders.items():
            np.save(folder / f"{index}.npy", feed[name], allow_pickle=False)


def read_results(manifest: Manifest, samples: Samples, plan: list[File], folder: Path) -> dict[str, list[np.ndarray]]:
    """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample.

    Raises `UserError` unless exactly the results of the plan's files are there, each of its type and shape and with
    numbers for every real token.
    """
    _check_names(folder, len(plan), len(manifest.outputs))
    lengths = np.diff(samples.starts)
    results: dict[str, list] = {output.name: [None] * len(lengths) for output in manifest.outputs}
    for index, (rows, length) in enumerate(track(plan, "read results", len(plan), "files")):
        batch = pack(samples, rows, length)
        for k, output in enumerate(manifest.outputs):
            path = folder / f"{index}_{k}.npy"
            array = _read(path, output, (len(rows), length))
            for sample, own in own_values(manifest, output, batch, array, lengths):
                if not np.isfinite(own).all():
                    raise UserError(
                        f"{path}: {output.name} is not a finite number; the model or its precision is broken"
                    )
                results[output.name][sample] = own
    return results


def _check_ranges(manifest: Manifest, samples: Samples) -> None:
    """An id beyond its table is an error in some runtimes and a wrong answer in others."""
    for wanted in manifest.sample_inputs:
        values = samples.tokens.get(wanted.name)
        if values is None or wanted.range is None or not len(values):
            continue
        lowest, highest = int(values.min()), int(values.max())
        if lowest < wanted.range[0] or highest > wanted.range[1]:
            raise UserError(
                f"{wanted.name}: values {lowest}..{highest}, the manifest allows {wanted.range[0]}..{wanted.range[1]}; "
                "convert the data for this model"
            )


def _check_names(folder: Path, files: int, outputs: int) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run the inference first")
    wanted = [f"{index}_{k}.npy" for index in range(files) for k in range(outputs)]
    found = {path.name for path in folder.glob("*.npy")}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(wanted)} result files are missing, the first is {missing[0]}; run the "
            "inference on all files that preprocess wrote"
        )
    surplus = sorted(found.difference(wanted))
    if surplus:
        raise UserError(
            f"{folder}: {surplus[0]} is no result of the {files} files that preprocess wrote ({outputs} outputs each); "
            "give each run of the inference a folder of its own"
        )


def _read(path: Path, output: GraphOutput, batch: tuple[int, int]) -> np.ndarray:
    shape = (*batch, *output.shape[2:]) if output.per == PER_TOKEN else (batch[0], *output.shape[1:])
    array = open_npy(path, "run the inference again")
    if array.dtype != np.dtype(output.dtype) or array.shape != shape:
        raise UserError(
            f"{path}: holds {array.dtype} {list(array.shape)}, {output.name} is {output.dtype} {list(shape)}; run the "
            "inference again, with this model and the files that preprocess wrote for it"
        )
    return np.array(array)
