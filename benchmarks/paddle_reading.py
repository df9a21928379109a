"""Reading a folder of Paddle variables: ours, which needs no Paddle and ends with canonical weights, and `paddle.load`.

The folder is as in Baidu's archive of ERNIE 1.0, 206 variables and 383 MiB of random weights, written to a temporary
place and read from memory by all (the warm-up has filled the page cache). `paddle.load` gives arrays under the names of
the files; "turned" adds what ours does too: canonical names, dense weights as [out, in], the next-sentence classes in
our order. The arrays of these two are compared.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sidebyside
from models.common.cli import run_main
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError, needed
from models.common.weights.canonical import load_config, tensors_sha256
from models.common.weights.formats import ERNIE, VARIABLES
from models.common.weights.names import canonical_shapes
from models.common.weights.paddle_names import FLUID
from models.common.weights.reading import read_checkpoint
from models.common.weights.writing import write_checkpoint

OURS, PEER, PEER_TURNED = "ours", "paddle.load", "paddle.load, turned"
NETWORK = EncoderConfig(vocab_size=18000, max_position_embeddings=513, hidden_act="relu", layer_norm_eps=1e-5)
QUICK_NETWORK = EncoderConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
HEADS = ("pooler", "heads.mlm", "heads.nsp")


def run_ours(setup: dict[str, Any]) -> None:
    """Worker: what the migrate command reads."""
    path = Path(setup["weights"])

    def read() -> dict[str, np.ndarray]:
        return read_checkpoint(path, "fluid", families=[ERNIE]).tensors

    _save_digest(setup["folder"], OURS, read())
    sidebyside.serve({}, lambda: {"variables": len(read())})


def run_peer(setup: dict[str, Any]) -> None:
    """Worker: Paddle's own reader, its arrays left as they are."""
    paddle = needed("paddle", "test")
    path = str(Path(setup["weights"], VARIABLES))
    sidebyside.serve({"version": paddle.__version__}, lambda: {"variables": len(paddle.load(path))})


def run_peer_turned(setup: dict[str, Any]) -> None:
    """Worker: Paddle's own reader, and its arrays made canonical."""
    paddle = needed("paddle", "test")
    path = str(Path(setup["weights"], VARIABLES))

    def read() -> dict[str, np.ndarray]:
        return {str(FLUID.to_canonical(name)): _turned(name, values) for name, values in paddle.load(path).items()}

    _save_digest(setup["folder"], PEER_TURNED, read())
    sidebyside.serve({"version": paddle.__version__}, lambda: {"variables": len(read())})


WORKERS = {OURS: run_ours, PEER: run_peer, PEER_TURNED: run_peer_turned}


def _turned(name: str, values: np.ndarray) -> np.ndarray:
    canonical = str(FLUID.to_canonical(name))
    values = values.T if FLUID.is_transposed(canonical) else values
    return np.ascontiguousarray(values[::-1] if canonical in FLUID.reversed_classes else values)


def _save_digest(folder: str, name: str, tensors: Mapping[str, np.ndarray]) -> None:
    Path(folder, f"{name}.sha256").write_text(tensors_sha256(tensors), encoding="ascii")


def compare(folder: Path) -> dict[str, str]:
    """The checksum of what was read; a `UserError` when the two that end alike do not."""
    ours, theirs = ((folder / f"{name}.sha256").read_text(encoding="ascii") for name in (OURS, PEER_TURNED))
    if ours != theirs:
        raise UserError(f"{OURS} and {PEER_TURNED} read other values from the same files")
    return {"tensors_sha256": ours}


def write_random(folder: Path, network: EncoderConfig) -> dict[str, float]:
    """Write random weights as Baidu's archives have them; how many variables and MiB they are."""
    generator = np.random.default_rng(1)
    shapes = canonical_shapes(network, HEADS)
    tensors = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    write_checkpoint("fluid", folder, network, tensors, family=ERNIE)
    return {"MiB": sum(tensor.nbytes for tensor in tensors.values()) / 2**20, "variables": len(tensors)}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sidebyside.add_flags(parser, repetitions=5, data="config.json of the network to write; ERNIE 1.0's")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        WORKERS[name](setup)
        return
    report = sidebyside.Report("benchmarks.paddle_reading", args, argv)
    sidebyside.check(args, ("repetitions",))
    if args.quick:
        args.repetitions = 1
    network = load_config(args.data_file) if args.data_file else QUICK_NETWORK if args.quick else NETWORK
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights")
        work = write_random(weights, network)
        setup = {"weights": str(weights)}
        summary = sidebyside.measure("benchmarks.paddle_reading", args, setup, list(WORKERS), work, Path(folder))
        summary |= compare(Path(folder))
    report.add("fluid", summary)


if __name__ == "__main__":
    run_main(main)
