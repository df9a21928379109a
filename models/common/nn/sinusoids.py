"""NEZHA's fixed table, in numpy: the network and the ONNX graph have the same."""

import numpy as np


def sinusoids(entries: int, width: int) -> np.ndarray:
    """The fixed table of the published NEZHA, float32 [entries, width]: sin(p / 10000^(2i / width)) in column 2i of row
    p, the cosine in column 2i + 1 (huawei-noah/Pretrained-Language-Model, NEZHA-TensorFlow/modeling.py)."""
    columns = np.arange(width)
    angles = np.arange(entries)[:, None] / 10000.0 ** (columns // 2 * 2 / width)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)
