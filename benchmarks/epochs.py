"""An epoch of training, ours and torch's, as the races of training time it; and the check that all trained alike."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from data_tools.feature_store import FeatureSet
from models.common.errors import UserError

LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-5, 0.01, 1.0
# Dropout and the order of the samples differ; a new head's loss over padding, too, is 0.8 more (log 384 - log 176).
LOSS_TOLERANCE = 0.3

Part = dict[str, np.ndarray]  # samples that torch computes at once: arrays [samples, T]; "index": which they are


def make_step(network: Any) -> Any:
    """Our training step for a network behind its loss."""
    from models.common.optim.optimizers import AdamW
    from models.common.train.step import TrainStep

    return TrainStep(network, AdamW(network.trainable_params(), WEIGHT_DECAY, 0.9, 0.999, 1e-8), CLIP)


def our_epoch(step: Any, batches: Iterable[tuple[list[np.ndarray], int, int]]) -> dict[str, Any]:
    """Train; of each batch its arrays are given, in the network's order, its examples and its real tokens."""
    import mindspore as ms
    from mindspore import Tensor

    from models.common.train.step import scalar

    losses, tokens = [], 0
    for index, (arrays, examples, real) in enumerate(batches):
        settings = (Tensor([0, index], ms.int32), scalar(LEARNING_RATE), scalar(index + 1), scalar(1.0))
        loss, _, _ = step(*settings, *(Tensor(array) for array in arrays))
        losses += [float(loss.asnumpy())] * examples
        tokens += real
    return {"mean_loss": float(np.mean(losses)), "examples": len(losses), "real_tokens": tokens}


def torch_epoch(
    model: Any, optimizer: Any, batches: Iterable[list[Part]], backward: Callable[[list[Part]], float]
) -> dict[str, Any]:
    """Train; `backward` computes the gradients of a batch and returns its loss."""
    import torch

    losses, tokens = [], 0
    for batch in batches:
        losses += [backward(batch)] * sum(len(part["index"]) for part in batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(int(part["attention_mask"].sum()) for part in batch)
    return {"mean_loss": float(np.mean(losses)), "examples": len(losses), "real_tokens": tokens}


def torch_batches(features: FeatureSet, size: int, length: int | None, part: int | None) -> Iterator[list[Part]]:
    """The samples in their order, about `size` at a time; see `in_parts`."""
    for indices in np.array_split(np.arange(len(features)), -(-len(features) // size)):
        yield in_parts(features, indices, length, part)


def in_parts(features: FeatureSet, indices: np.ndarray, length: int | None, part: int | None) -> list[Part]:
    """A batch, padded to `length`, or to the longest of each part; with `part` so many samples of like length are one
    part, otherwise all are."""
    if part is not None:
        indices = indices[np.argsort(features.lengths[indices], kind="stable")]
    pieces = [indices[at : at + part] for at in range(0, len(indices), part)] if part else [indices]
    return [features.padded(piece, length or int(features.lengths[piece].max())) | {"index": piece} for piece in pieces]


def check_losses(summary: dict[str, Any], work: dict[str, float]) -> None:
    """All saw all examples and tokens, and their mean losses are of the same size; otherwise a `UserError`."""
    runs = {name: result["repetitions"][0] for name, result in summary["contenders"].items()}
    first = next(iter(runs))
    for name, run in runs.items():
        counts = {unit: run[unit] for unit in work}
        if counts != work:
            raise UserError(f"{name} trained on {counts}, the samples hold {work}")
        if not abs(run["mean_loss"] - runs[first]["mean_loss"]) <= LOSS_TOLERANCE:
            raise UserError(f"mean loss of {name} is {run['mean_loss']}, of {first} {runs[first]['mean_loss']}")
