"""Every parity tolerance of the project: name -> (rtol, atol, reason)."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Relative and absolute tolerance of a comparison, and why it is not zero."""

    rtol: float
    atol: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "training steps": Tolerance(2e-4, 2e-5, "five AdamW steps: Adam divides small gradients by their own size"),
    "optimizer steps": Tolerance(2e-5, 2e-6, "a dozen float32 updates in another order of operations"),
    "hidden states": Tolerance(1e-5, 1e-5, "float32 sums in another order, through every layer; values are of size 1"),
    "pooled output": Tolerance(1e-5, 1e-5, "as hidden states, in a tanh that is off by 2e-6 on a CPU (measured)"),
    "logits": Tolerance(1e-5, 1e-5, "as hidden states, summed once more over the hidden size"),
    "loss": Tolerance(1e-5, 2e-6, "logits in a log-sum-exp"),
    "gradients": Tolerance(1e-4, 5e-6, "float32 backward through every layer, sums over all tokens in another order"),
    "crf gradients": Tolerance(1e-4, 5e-6, "probabilities of paths: float32 exponentials multiplied along a row"),
    "float16": Tolerance(0.0, 2e-2, "one layer with 11 significant bits; logits are of size 1"),
    "lite logits": Tolerance(0.0, 1e-6, "MindSpore Lite rounds otherwise: off by 1.4e-7 (measured), of 0.34"),
    "onnx logits": Tolerance(2e-5, 2e-5, "as logits; ONNX Runtime has an erf and an exp of its own"),
    "onnx ascend": Tolerance(1e-5, 5e-5, "as onnx passes, over sums of 128 instead of 16; off by 1.1e-5 (measured)"),
    "onnx passes": Tolerance(
        1e-5, 1e-5, "the same numbers in sums of another order, one fused softmax; logits of size 1"
    ),
    "packing": Tolerance(1e-5, 5e-6, "float32 sums over the same tokens at other places of the matrices"),
    "peer losses": Tolerance(1e-5, 1e-6, "six AdamW steps: gradients summed in parts of other shapes"),
}
