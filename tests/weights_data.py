"""Small encoders with distinct random values, for the tests of weights."""

import ml_dtypes
import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.weights.names import OPTIONAL_GROUPS, canonical_shapes

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
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def random_tensors(
    config: EncoderConfig = TINY, groups: tuple[str, ...] = OPTIONAL_GROUPS, dtype: str = "float32", seed: int = 0
) -> dict[str, np.ndarray]:
    """Canonical tensors of any bit patterns: the first of each holds a NaN with payload, -0.0 and a subnormal."""
    generator = np.random.default_rng(seed)
    tensors = {
        name: generator.standard_normal(shape).astype(DTYPES[dtype])
        for name, shape in canonical_shapes(config, groups).items()
    }
    odd = {"float32": (np.uint32, 0x7FC12345), "float16": (np.uint16, 0x7E55), "bfloat16": (np.uint16, 0x7FC5)}
    kind, pattern = odd[dtype]
    bits = tensors["embeddings.word.weight"].view(kind)
    bits[0, :3] = pattern, 1 << (8 * kind().itemsize - 1), 1
    return tensors
