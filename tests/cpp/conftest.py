"""What the tests of the C++ program share: the program, a tiny model deployed in both layouts, its logits."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from models.common.device import set_device
from models.common.nn.networks import SpanNetwork
from models.common.runtime.mindspore_lite_runtime import build_program
from models.common.weights.loading import load_into
from models.common.weights.reading import read_checkpoint
from tests.cpp.deployment import LENGTH, PADDED_ROWS, PER_ROW, ROWS, Deployed, deploy, write_short_squad


@pytest.fixture(scope="session")
def program() -> Path:
    """The C++ program, as build.sh makes it."""
    return build_program()


@pytest.fixture(scope="session")
def packed(tmp_path_factory, tiny_weights) -> Deployed:
    """Several samples a row."""
    folder = tmp_path_factory.mktemp("packed")
    data = write_short_squad(folder / "short.json")
    return deploy(tiny_weights, data, folder, export_batch_size=ROWS, max_samples_per_row=PER_ROW)


@pytest.fixture(scope="session")
def padded(tmp_path_factory, tiny_weights) -> Deployed:
    """One padded sample a row."""
    folder = tmp_path_factory.mktemp("padded")
    data = write_short_squad(folder / "short.json")
    return deploy(tiny_weights, data, folder, export_batch_size=PADDED_ROWS, packed="false")


@pytest.fixture(scope="session")
def logits(packed, tiny_weights) -> tuple[np.ndarray, np.ndarray]:
    """Start and end logits [N, T] of all samples in MindSpore: no packing, no export, inputs from the .bin files."""
    set_device("CPU")
    checkpoint = read_checkpoint(tiny_weights)
    network = SpanNetwork(checkpoint.config)
    load_into(network, checkpoint.tensors, allow_unused=("pooler.*",))
    network.set_train(False)
    ids, mask, types = packed.arrays.values()
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (len(ids), 1))
    start, end = network(*(Tensor(array) for array in (ids, mask, types, positions)))
    return start.asnumpy(), end.asnumpy()
