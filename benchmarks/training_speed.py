"""Training speed at equal work: the same samples, the same weights, the same loss, here and in torch.

Ours trains packed rows in MindSpore graph mode; torch trains with transformers, once padded to the full length, once to
the longest sample of each batch, and once with each batch computed in parts of similar length, which is its best. A
step is everything: building the batch, forward, backward, clipping, AdamW. Before the race all compute the logits of
all samples without dropout, which must agree; the mean losses of the first epoch after the warm-up must, too.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import epochs, samples, sidebyside
from models.common.cli import run_main
from models.common.tasks.span import OUTPUTS

OURS = "ours"
TORCH_PADDED, TORCH_DYNAMIC, TORCH_PARTS = "torch, padded", "torch, longest of batch", "torch, parts of like length"
PART = 4  # samples that are computed at once in the last of them
MAX_SAMPLES = 8


def load_network(folder: str) -> Any:
    """The question-answering network in MindSpore, as the fine-tuning command builds it."""
    from models.bert.config import NETWORKS
    from models.common.device import set_device
    from models.common.finetune.running import build
    from models.common.finetune.span import SpanConfig, SpanTask
    from models.common.weights.reading import read_checkpoint

    set_device("CPU")
    return build(SpanTask(SpanConfig(), NETWORKS), read_checkpoint(Path(folder, "hf")), new=())


def our_runtime(network: Any, length: int, rows: int) -> Any:
    """The runtime that evaluates."""
    from models.common.runtime.mindspore_runtime import MindSporeRuntime

    return MindSporeRuntime(network, OUTPUTS, length, rows, MAX_SAMPLES)


def our_logits(runtime: Any, features: Any) -> list[np.ndarray]:
    """[2, length] of each sample."""
    logits = runtime.predict(features)
    return [np.stack(pair) for pair in zip(*(logits[name] for name in OUTPUTS), strict=True)]


def run_ours(setup: dict) -> None:
    """Worker: packed rows in MindSpore; every repetition is one epoch over the samples."""
    from models.common.nn.training import SpanTrainingNetwork
    from models.common.packing import fill_rate, pack
    from models.common.tasks.span import training_inputs
    from models.common.train.batches import BatchPlan

    features, length = setup["features"], setup["length"]
    plan = BatchPlan(features.lengths, length, setup["batch_size"], epochs=1, seed=0, max_samples=MAX_SAMPLES)
    network = load_network(setup["folder"])
    runtime = our_runtime(network, length, plan.rows_per_step)
    samples.save_logits(setup["folder"], OURS, our_logits(runtime, features), features)
    step = epochs.make_step(SpanTrainingNetwork(network))

    def batches() -> Iterator[tuple[list[np.ndarray], int, int]]:
        for index in range(plan.total_steps):
            batch = pack(features, plan.step(index).rows, length, plan.rows_per_step)
            arrays = training_inputs(features, batch, plan.max_samples)
            yield arrays, len(batch.samples), int((batch.arrays["sequence_ids"] > 0).sum())

    steps = {"steps": plan.total_steps, "rows_per_step": plan.rows_per_step}
    filled = {"fill_rate": fill_rate(features.lengths, plan.epoch_rows(0), length)}
    sidebyside.serve(steps | filled, lambda: epochs.our_epoch(step, batches()))


def run_torch(name: str, setup: dict) -> None:
    """Worker: padded batches in transformers; every repetition is one epoch over the samples."""
    import torch
    from transformers import BertForQuestionAnswering

    from benchmarks.peer_squad_finetune import make_optimizer

    features = setup["features"]
    model = BertForQuestionAnswering.from_pretrained(Path(setup["folder"], "hf")).eval()

    def batches() -> Iterator[list[epochs.Part]]:
        length = setup["length"] if name == TORCH_PADDED else None
        return epochs.torch_batches(features, setup["batch_size"], length, PART if name == TORCH_PARTS else None)

    with torch.inference_mode():
        logits = [values for batch in batches() for part in batch for values in _logits(model, part).numpy()]
    order = np.concatenate([part["index"] for batch in batches() for part in batch])
    samples.save_logits(setup["folder"], name, [logits[place] for place in np.argsort(order)], features)
    model.train()
    optimizer = make_optimizer(model, epochs.LEARNING_RATE, epochs.WEIGHT_DECAY)
    description = {"steps": len(list(batches())), "attention": model.config._attn_implementation}
    sidebyside.serve(description, lambda: epochs.torch_epoch(model, optimizer, batches(), partial(_backward, model)))


def _backward(model: Any, batch: list[epochs.Part]) -> float:
    """Gradients of the mean loss of a batch's samples, and that loss."""
    total, count = 0.0, sum(len(part["index"]) for part in batch)
    for part in batch:
        loss = _loss(_logits(model, part), part) / count
        loss.backward()
        total += loss.item()
    return total


def _logits(model: Any, part: dict[str, np.ndarray]) -> Any:
    """Start and end logits as one tensor [part, 2, T]."""
    import torch

    output = model(**samples.torch_inputs(part))
    return torch.stack([output.start_logits, output.end_logits], dim=1)


def _loss(logits: Any, part: dict[str, np.ndarray]) -> Any:
    """Sum over the samples of the mean of both cross-entropies, over real tokens (transformers' takes padding in)."""
    import torch

    logits = logits.masked_fill(torch.from_numpy(part["attention_mask"] == 0)[:, None], -1e30)
    labels = torch.from_numpy(np.stack([part["start_position"], part["end_position"]], axis=1)).long()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    samples.add_flags(parser, samples=64)
    parser.add_argument("--batch_size", type=int, default=16, help="samples a step (ours: on average)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        run_ours(setup) if name == OURS else run_torch(name, setup)
        return
    report = sidebyside.Report("benchmarks.training_speed", args, argv)
    samples.settle(args, ("batch_size",))
    length = samples.sequence_length(args)
    features = samples.draw(args, length, training=True)
    work = {"examples": len(features), "real_tokens": int(features.lengths.sum())}
    names = [OURS, TORCH_PARTS, TORCH_DYNAMIC, TORCH_PADDED]
    with tempfile.TemporaryDirectory() as folder:
        samples.make_model(args.weights, args.seed, Path(folder, "hf"))
        setup = {"features": features, "length": length, "batch_size": args.batch_size}
        summary = sidebyside.measure("benchmarks.training_speed", args, setup, names, work, Path(folder))
        summary |= {"samples": samples.describe(features, length), "logits": samples.compare_logits(folder, names)}
    epochs.check_losses(summary, work)
    report.add("training", summary)


if __name__ == "__main__":
    run_main(main)
