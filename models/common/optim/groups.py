"""Which parameters weight decay leaves alone."""


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of this canonical name: not to biases and LayerNorm.

    Source: google-research/bert optimization.py, `exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]`.
    """
    return not (name.endswith(".bias") or ".norm." in name)
