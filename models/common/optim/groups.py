"""Which parameters weight decay leaves alone."""


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of this canonical name: not to biases and LayerNorm.

    Source: google-research/bert optimization.py, `exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]`. The
    start and end scores of a CRF are biases by another name.
    """
    return not (name.endswith((".bias", ".crf.start", ".crf.end")) or ".norm." in name)
