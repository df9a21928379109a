"""Small encoders with distinct random values, and what the tests of weights do with them."""

from pathlib import Path

import ml_dtypes
import numpy as np

from models.bert import migrate
from models.common.encoder_config import EncoderConfig
from models.common.weights.arrays import same_bits
from models.common.weights.names import canonical_shapes
from models.common.weights.reading import read_checkpoint
from models.ernie import migrate as migrate_ernie

TINY = EncoderConfig(
    vocab_size=37,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=19,
    type_vocab_size=2,
    layer_norm_eps=1e-5,
    hidden_act="relu",
)
# The heads that every family has a place for, all at once.
GROUPS = ("pooler", "heads.span", "heads.mlm", "heads.nsp")
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def random_tensors(
    config: EncoderConfig = TINY,
    groups: tuple[str, ...] = GROUPS,
    dtype: str = "float32",
    seed: int = 0,
    labels: int = 3,
) -> dict[str, np.ndarray]:
    """Canonical tensors of any bit patterns: the first of each holds a NaN with payload, -0.0 and a subnormal."""
    generator = np.random.default_rng(seed)
    tensors = {
        name: generator.standard_normal(shape).astype(DTYPES[dtype])
        for name, shape in canonical_shapes(config, groups, labels).items()
    }
    odd = {"float32": (np.uint32, 0x7FC12345), "float16": (np.uint16, 0x7E55), "bfloat16": (np.uint16, 0x7FC5)}
    kind, pattern = odd[dtype]
    bits = tensors["embeddings.word.weight"].view(kind)
    bits[0, :3] = pattern, 1 << (8 * kind().itemsize - 1), 1
    return tensors


def run(source: Path, target: Path, from_format: str, to_format: str, *flags: object) -> Path:
    """Run the migrate command in this process; returns `target`."""
    migrate.main(["--from", from_format, "--to", to_format, str(source), str(target), *map(str, flags)])
    return target


def run_ernie(source: Path, target: Path, from_format: str, to_format: str, *flags: object) -> Path:
    """As `run`, the command of ERNIE."""
    migrate_ernie.main(["--from", from_format, "--to", to_format, str(source), str(target), *map(str, flags)])
    return target


def assert_same(tensors: dict, wanted: dict) -> None:
    """Equal names, types, shapes and bits; arrays of numpy or torch."""
    assert set(tensors) == set(wanted)
    assert [name for name in wanted if not same_bits(np.asarray(tensors[name]), np.asarray(wanted[name]))] == []


def load_any(path: Path) -> tuple[EncoderConfig, dict[str, np.ndarray]]:
    """Config and canonical tensors of weights of any format."""
    checkpoint = read_checkpoint(path)
    return checkpoint.config, checkpoint.tensors
