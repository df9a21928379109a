"""Where an ONNX graph will run, and which passes (`onnx_passes`) it takes for that. Needs no framework."""

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError

TARGETS = ("any", "onnxruntime", "ascend")


def passes_for(target: str, config: EncoderConfig) -> tuple[str, ...]:
    """The passes that a graph of this config takes for one of `TARGETS`."""
    absolute = config.relative_kind == "none"  # another attention is none that they know
    if target == "onnxruntime":
        return ("fuse_attention",) * absolute + ("fuse_gelu",) * (config.hidden_act == "gelu")
    if target == "ascend" and not absolute:
        raise UserError("relative positions have no layout of their own for Ascend; export for any target")
    return ("flatten_tokens", "split_key_transpose", "expand_mask") if target == "ascend" else ()
