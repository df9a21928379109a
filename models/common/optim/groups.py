"""What differs from parameter to parameter: weight decay and learning rate."""


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of this canonical name: not to biases and LayerNorm.

    Source: google-research/bert optimization.py, `exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]`. The
    start and end scores of a CRF are biases by another name.
    """
    return not (name.endswith((".bias", ".crf.start", ".crf.end")) or ".norm." in name)


def is_head(name: str) -> bool:
    """Whether the parameter of this canonical name belongs to a task's head, not to the pretrained network."""
    return name.startswith("heads.")
