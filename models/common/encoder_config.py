"""The shape of a BERT-family encoder, in the spelling of Hugging Face's config.json. Needs no framework."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from models.common.errors import UserError

ACTIVATIONS = ("gelu", "gelu_new", "relu")  # gelu is the exact erf form, gelu_new its tanh approximation
# How positions enter: added to the embeddings ("none"), or as NEZHA's relative positions in every attention layer.
RELATIVE_KINDS = ("none", "sinusoidal", "learned")
COMPUTE_TYPES = ("float32", "float16")
MODELZOO_DISTANCE = 16  # mindspore-ai/models official/nlp/Bert writes it into its code


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and numerical choices of one encoder; the defaults are BERT-base uncased (Devlin et al. 2018).

    `layer_norm_eps` and `hidden_act` belong to the checkpoint: Google's BERT uses 1e-12 and the erf gelu,
    Paddle's ERNIE 1e-5 and relu, the old MindSpore ModelZoo 1e-7 and the tanh gelu.

    `relative_kind` and `max_relative_position` (the distance at which relative positions are clipped) are NEZHA's (Wei
    et al. 2019): "sinusoidal" with 64 is that of the published weights; "learned" with 16 is that of the old MindSpore
    ModelZoo, one trained table per layer. `compute_type` is of the run, not of the checkpoint: what the encoder
    multiplies in; parameters are float32 either way.
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
    relative_kind: str = "none"
    max_relative_position: int = 64
    compute_type: str = "float32"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be positive, got {getattr(self, name)}"
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                         "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "max_relative_position")
            if not getattr(self, name) > 0
        ]  # fmt: skip
        if not problems and self.hidden_size % self.num_attention_heads:
            problems.append(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        choices = {"hidden_act": ACTIVATIONS, "relative_kind": RELATIVE_KINDS, "compute_type": COMPUTE_TYPES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                problems.append(f"{name} {getattr(self, name)!r} is unknown; one of {', '.join(allowed)}")
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
        """Build from a dict that may hold further keys (Hugging Face configs do); types are checked, all at once.

        NEZHA is known by the keys of its published configs and of the old ModelZoo as well, see `_relative_positions`.
        """
        values = {**_relative_positions(values), **values}
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


def _relative_positions(values: dict[str, Any]) -> dict[str, Any]:
    """The relative positions that a config of another family names, in our keys; {} where it names none.

    Published NEZHA configs have `use_relative_position` true or model_type "nezha", and `max_relative_position`; the
    old ModelZoo has `use_relative_positions`, in the plural.
    """
    if values.get("use_relative_positions") is True or values.get("relative_kind") == "learned":
        return {"relative_kind": "learned", "max_relative_position": MODELZOO_DISTANCE}
    if values.get("use_relative_position", values.get("model_type") == "nezha") is True:
        return {"relative_kind": "sinusoidal"}
    return {}
