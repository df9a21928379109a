"""ERNIE 1.0 in Paddle, written here from its own layers, with canonical weights.

Shapes: B rows of one sample, T tokens, H hidden, V vocabulary.
"""

import os

import mindspore  # noqa: F401  (before Paddle: both bring a libdnnl, and Paddle runs with MindSpore's but not the reverse)
import numpy as np

from models.common.encoder_config import EncoderConfig

_threads = os.environ.get("OMP_NUM_THREADS")
import paddle  # noqa: E402
from paddle import nn  # noqa: E402

if _threads is None:  # Paddle sets it to 1 for itself; processes that tests start would take it over
    os.environ.pop("OMP_NUM_THREADS", None)

MASKS = ("outer", "keys")
NOT_ALLOWED = 10000.0


class PaddleErnie(nn.Layer):
    """Encoder, pooler and the heads of pretraining."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.word = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.layers = nn.LayerList([
            nn.TransformerEncoderLayer(
                width, config.num_attention_heads, config.intermediate_size, dropout=0.0, activation=config.hidden_act,
                attn_dropout=0.0, act_dropout=0.0, normalize_before=False, layer_norm_eps=epsilon,
            )
            for _ in range(config.num_hidden_layers)
        ])  # fmt: skip
        self.pooler, self.transform = nn.Linear(width, width), nn.Linear(width, width)
        self.transform_norm = nn.LayerNorm(width, epsilon)
        self.word_bias = self.create_parameter([config.vocab_size], is_bias=True)
        self.relation = nn.Linear(width, 2)
        self.activation = getattr(nn.functional, config.hidden_act)

    def canonical(self) -> dict[str, paddle.Tensor]:
        """The parameters by their canonical names."""
        parts = {
            "embeddings.norm": self.norm, "pooler": self.pooler, "heads.mlm.transform": self.transform,
            "heads.mlm.norm": self.transform_norm, "heads.nsp": self.relation,
        }  # fmt: skip
        for index, layer in enumerate(self.layers):
            attention, at = layer.self_attn, f"encoder.layers.{index}"
            parts |= {
                f"{at}.attention.query": attention.q_proj, f"{at}.attention.key": attention.k_proj,
                f"{at}.attention.value": attention.v_proj, f"{at}.attention.output": attention.out_proj,
                f"{at}.attention.norm": layer.norm1, f"{at}.feed_forward.up": layer.linear1,
                f"{at}.feed_forward.down": layer.linear2, f"{at}.feed_forward.norm": layer.norm2,
            }  # fmt: skip
        found = {f"{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("weight", "bias")}
        tables = {name: getattr(self, name).weight for name in ("word", "position", "token_type")}
        return found | {f"embeddings.{name}.weight": table for name, table in tables.items()} | {
            "heads.mlm.bias": self.word_bias
        }  # fmt: skip

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Take canonical weights, all of them and no others."""
        parameters = self.canonical()
        assert parameters.keys() == tensors.keys()
        for name, parameter in parameters.items():
            parameter.set_value(turned(name, tensors[name]))

    def gradients(self) -> dict[str, np.ndarray]:
        """Canonical name -> gradient, behind `backward`."""
        return {name: turned(name, parameter.grad.numpy()) for name, parameter in self.canonical().items()}

    def forward(self, ids, types, real, mask: str):
        """int64 [B, T] twice, bool [B, T] -> the embeddings and what each layer gives, [B, T, H]; pooled, [B, H].

        mask: which pairs of tokens attend, as Baidu's fluid code has it, tokens of padding seeing nothing either
        ("outer"), or as PaddleNLP has it ("keys").
        """
        seen = real.astype("float32")
        allowed = seen[:, :, None] * seen[:, None, :] if mask == "outer" else seen[:, None, :]  # [B, T or 1, T]
        added = ((allowed - 1.0) * NOT_ALLOWED).unsqueeze(1)
        hidden = self.norm(self.word(ids) + self.position(paddle.arange(ids.shape[1])) + self.token_type(types))
        states = [hidden]
        for layer in self.layers:
            states.append(layer(states[-1], added))
        return states, paddle.tanh(self.pooler(states[-1][:, 0]))

    def words(self, hidden):
        """[P, H] -> logits of all words, [P, V]."""
        transformed = self.transform_norm(self.activation(self.transform(hidden)))
        return paddle.matmul(transformed, self.word.weight, transpose_y=True) + self.word_bias


def turned(name: str, values: np.ndarray) -> np.ndarray:
    """Paddle has the weights of dense layers as [in, out], we as [out, in]; tables are alike."""
    dense = values.ndim == 2 and not name.startswith("embeddings.")
    return np.ascontiguousarray(values.T) if dense else values
