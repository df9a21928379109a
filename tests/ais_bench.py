"""What ais_bench does with folders of .npy files (`--outfmt NPY`), with ONNX Runtime where the device would be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime


def run_ais_bench(model: Path, inputs: Sequence[Path], output: Path) -> None:
    """Run every file of the input folders, one folder for each input of the graph, in its order.

    Where the graph takes more rows than a file has, files are put together and the last batch is filled with zeros. The
    results are cut apart again and named after the file: <name>_<k>.npy for output k.
    """
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = sorted((path.name for path in inputs[0].iterdir()), key=lambda name: int(name.partition(".")[0]))
    output.mkdir(parents=True)
    wanted = session.get_inputs()[0].shape[0]
    together = wanted if isinstance(wanted, int) else 1
    for first in range(0, len(names), together):
        batch = names[first : first + together]
        feed = {
            given.name: filled([np.load(folder / name) for name in batch], together)
            for given, folder in zip(session.get_inputs(), inputs, strict=True)
        }
        for k, array in enumerate(session.run(None, feed)):
            for name, part in zip(batch, np.split(array, together), strict=False):
                np.save(output / f"{name.partition('.')[0]}_{k}.npy", part)


def filled(arrays: list[np.ndarray], count: int) -> np.ndarray:
    """The arrays one behind the other, with zeros in place of those that lack to `count`."""
    return np.concatenate([*arrays, *[np.zeros_like(arrays[0])] * (count - len(arrays))])
