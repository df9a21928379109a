"""The folders between preprocess, the C++ program and postprocess (the originals' layout). Needs no framework.

    <data>/00_data/<task>_bs1_<index>.bin, 01_data/...     one file per sample and input, int32, padded with 0
    <results>/<task>_bs1_<index>_<k>.bin                   output k in the manifest's order, of its dtype

Shapes: N samples, T tokens of a padded sample. All values are little-endian.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import PER_TOKEN, GraphOutput, Manifest, check_samples
from models.common.progress import Progress
from models.common.runtime.folders import replaced_folders

LABELS = "labels.txt"  # what the program writes for people
CHUNK_SAMPLES = 512  # bounds the memory of the padded arrays


class PaddedSamples(Protocol):
    """What writing needs of a feature set."""

    def __len__(self) -> int: ...
    def padded(self, indices: Sequence[int] | np.ndarray, row_length: int) -> dict[str, np.ndarray]: ...


def task_setting(manifest: Manifest, name: str) -> int:
    """A whole number among the manifest's settings of the task; a `UserError` when it is missing or something else."""
    value = manifest.task.get(name)
    if type(value) is not int:
        raise UserError(f"manifest, task.{name}: expected a whole number, got {value!r}; export the model again")
    return value


def write_samples(manifest: Manifest, samples: PaddedSamples, folder: Path | str) -> None:
    """Write every sample input of the manifest for all samples into its folder below `folder`.

    When all are written they replace a former run's. Raises `UserError` when the samples do not match the manifest or a
    folder holds other files.
    """
    folder, task = Path(folder), manifest.task["name"]
    inputs = manifest.sample_inputs
    names, length = [sample.name for sample in inputs], inputs[0].shape[0]
    files = rf"{re.escape(task)}_bs1_\d+\.bin"
    with (
        replaced_folders([folder / sample.folder for sample in inputs], files, "--result_path") as staging,
        Progress("write samples", len(samples), "samples") as progress,
    ):
        for first in range(0, len(samples), CHUNK_SAMPLES):
            indices = np.arange(first, min(first + CHUNK_SAMPLES, len(samples)))
            padded = samples.padded(indices, length)
            arrays = {name: padded[name] for name in names if name in padded}
            check_samples(manifest, arrays)
            for target, name in zip(staging, names, strict=True):
                for index, row in zip(indices, np.ascontiguousarray(arrays[name], "<i4"), strict=True):
                    (target / f"{task}_bs1_{index}.bin").write_bytes(row)
            progress.update(len(indices))


def read_results(manifest: Manifest, folder: Path | str, count: int) -> dict[str, np.ndarray]:
    """Read what the C++ program wrote: output name -> [N, T, ...] (per sample: [N, ...]) of its dtype.

    Raises `UserError` unless exactly the results of `count` samples are there, each of the manifest's size.
    """
    folder, task = Path(folder), manifest.task["name"]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run the inference first")
    wanted = {f"{task}_bs1_{index}_{k}.bin" for index in range(count) for k in range(len(manifest.outputs))}
    found = {path.name for path in folder.iterdir()} - {LABELS}
    if found != wanted:
        examples = sorted(found ^ wanted)[:3]
        raise UserError(
            f"{folder}: {len(found)} result files, {len(wanted)} expected ({count} samples, {len(manifest.outputs)} "
            f"outputs), for example {', '.join(examples)}; run preprocess and inference again on the same data"
        )
    return {
        output.name: np.stack([_read(folder / f"{task}_bs1_{i}_{k}.bin", output.dtype, shape) for i in range(count)])
        for k, output in enumerate(manifest.outputs)
        for shape in [_sample_shape(manifest, output)]
    }


def _sample_shape(manifest: Manifest, output: GraphOutput) -> tuple[int, ...]:
    if output.per == PER_TOKEN:
        return (manifest.sample_inputs[0].shape[0], *output.shape[2:])
    return output.shape[2:] if manifest.packing else output.shape[1:]


def _read(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
    if values.nbytes != path.stat().st_size or values.size != int(np.prod(shape)):
        raise UserError(f"{path}: has {path.stat().st_size} bytes, {dtype} {list(shape)} expected; run inference again")
    return values.reshape(shape)
