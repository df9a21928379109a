"""Is an exported artefact the network it was made from? Both answer the same real samples; numpy only.

Shapes: N samples, L real tokens of a sample.
"""

from collections.abc import Callable, Mapping

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import Parity
from models.common.packing import Samples

# Largest difference allowed to the network, for outputs of size 1; it grows with the largest output. Measured: 3e-5 for
# BERT-base in MindSpore Lite, whose gelu and softmax round otherwise. A wrong gelu or epsilon is off by 1e-3 and more.
# float16 has 11 significant bits, which every layer rounds to.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}

Predict = Callable[[Samples], Mapping[str, list[np.ndarray]]]  # samples -> output name -> N arrays [L, ...]


def verify(
    runtime: Predict, reference: Predict, batches: Mapping[str, Samples], reference_name: str, precision: str
) -> Parity:
    """Compare the outputs of all samples of all `batches` (name -> samples) at their real tokens.

    Returns what was measured; raises `UserError` when an output is missing, of another shape, not finite or further
    from the reference than the tolerance.
    """
    differences: dict[str, float] = {}
    largest = 1.0
    for batch, samples in batches.items():
        expected, found = reference(samples), runtime(samples)
        if set(expected) != set(found):
            raise UserError(f"verification: outputs {sorted(found)}, the network has {sorted(expected)}")
        for name, arrays in expected.items():
            if [array.shape for array in arrays] != [array.shape for array in found[name]]:
                raise UserError(f"verification on the {batch} samples: {name} has other shapes than the network's")
            wanted, given = np.concatenate(arrays), np.concatenate(found[name])
            largest = max(largest, float(np.abs(wanted).max()))
            # np.maximum, unlike max(), keeps a NaN.
            worst = np.maximum(differences.get(name, 0.0), np.abs(wanted.astype(np.float64) - given).max())
            differences[name] = float(worst)
    tolerance = TOLERANCES[precision] * largest
    bad = {name: value for name, value in differences.items() if not value <= tolerance}
    if bad:
        listed = ", ".join(f"{name} by {value:.3g}" for name, value in bad.items())
        raise UserError(f"verification failed: {listed} away from {reference_name}, allowed is {tolerance:.3g}")
    return Parity(reference_name, tolerance, differences, tuple(batches))
