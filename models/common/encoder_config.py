"""The shape of a BERT-family encoder, in the spelling of Hugging Face's config.json. Needs no framework."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from models.common.errors import UserError

ACTIVATIONS = ("gelu", "gelu_new", "relu")  # gelu is the exact erf form, gelu_new its tanh approximation


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and numerical choices of one encoder; the defaults are BERT-base uncased (Devlin et al. 2018).

    `layer_norm_eps` and `hidden_act` belong to the checkpoint: Google's BERT uses 1e-12 and the erf gelu,
    Paddle's ERNIE 1e-5 and relu, the old MindSpore ModelZoo 1e-7 and the tanh gelu.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be positive, got {getattr(self, name)}"
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                         "max_position_embeddings", "type_vocab_size", "layer_norm_eps")
            if not getattr(self, name) > 0
        ]  # fmt: skip
        if not problems and self.hidden_size % self.num_attention_heads:
            problems.append(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.hidden_act not in ACTIVATIONS:
            problems.append(f"hidden_act {self.hidden_act!r} is unknown; one of {', '.join(ACTIVATIONS)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                problems.append(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if problems:
            raise UserError("encoder config: " + "; ".join(problems))

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "config") -> "EncoderConfig":
        """Build from a dict that may hold further keys (Hugging Face configs do); types are checked, all at once."""
        known, problems = {}, []
        for field in fields(cls):
            if field.name not in values:
                continue
            value = values[field.name]
            if field.type is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not field.type:
                problems.append(f"{field.name} must be {field.type.__name__}, got {value!r}")
            known[field.name] = value
        missing = [name for name in ("vocab_size", "hidden_size", "num_hidden_layers") if name not in values]
        problems += [f"{name} is missing" for name in missing]
        if problems:
            raise UserError(f"{source}: " + "; ".join(problems))
        return cls(**known)
