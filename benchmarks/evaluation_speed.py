"""Evaluation speed at equal work: logits of the same windows of the same questions, here and in torch.

Ours packs windows into rows of one static shape (`models.common.runtime`); torch runs transformers on windows sorted by
length and padded to the longest of each batch, which is its best, and padded to the full length, which is its default.
Tokenizing and decoding are the same for all and not part of it. The logits of all are compared.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import samples, sidebyside
from models.common.cli import run_main

OURS, TORCH_PADDED, TORCH_SORTED = "ours", "torch, padded", "torch, sorted by length"


def run_ours(setup: dict) -> None:
    """Worker: packed rows in MindSpore."""
    from benchmarks.training_speed import load_network, our_logits, our_runtime

    runtime = our_runtime(load_network(setup["folder"]), setup["length"], setup["rows"])
    features = setup["features"]

    def predict() -> list[np.ndarray]:
        return our_logits(runtime, features)

    samples.save_logits(setup["folder"], OURS, predict(), features)
    sidebyside.serve({"rows_per_batch": setup["rows"]}, lambda: _count(predict()))


def run_torch(name: str, setup: dict) -> None:
    """Worker: padded batches in transformers."""
    import torch
    from transformers import BertForQuestionAnswering

    features, size, by_length = setup["features"], setup["batch_size"], name == TORCH_SORTED
    model = BertForQuestionAnswering.from_pretrained(Path(setup["folder"], "hf")).eval()
    order = np.argsort(features.lengths, kind="stable") if by_length else np.arange(len(features))

    def predict() -> list[np.ndarray]:
        logits: list = [None] * len(features)
        with torch.inference_mode():
            for first in range(0, len(order), size):
                indices = order[first : first + size]
                length = int(features.lengths[indices].max()) if by_length else setup["length"]
                output = model(**samples.torch_inputs(features.padded(indices, length)))
                both = torch.stack([output.start_logits, output.end_logits]).numpy()
                for row, index in enumerate(indices):
                    logits[index] = both[:, row, : features.lengths[index]]
        return logits

    samples.save_logits(setup["folder"], name, predict(), features)
    description = {"batch_size": size, "attention": model.config._attn_implementation}
    sidebyside.serve(description, lambda: _count(predict()))


def _count(logits: list[np.ndarray]) -> dict[str, int]:
    return {"windows": len(logits), "real_tokens": sum(pair.shape[1] for pair in logits)}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    samples.add_flags(parser, samples=256)
    parser.add_argument("--rows", type=int, default=8, help="rows of our batch")
    parser.add_argument("--batch_size", type=int, default=32, help="windows of torch's batch")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        run_ours(setup) if name == OURS else run_torch(name, setup)
        return
    report = sidebyside.Report("benchmarks.evaluation_speed", args, argv)
    samples.settle(args, ("rows", "batch_size"))
    length = samples.sequence_length(args)
    features = samples.draw(args, length, training=False)
    work = {
        "questions": len(set(features.qas_ids)), "windows": len(features), "real_tokens": int(features.lengths.sum()),
    }  # fmt: skip
    names = [OURS, TORCH_SORTED, TORCH_PADDED]
    with tempfile.TemporaryDirectory() as folder:
        samples.make_model(args.weights, args.seed, Path(folder, "hf"))
        setup = {"features": features, "length": length, "rows": args.rows, "batch_size": args.batch_size}
        summary = sidebyside.measure("benchmarks.evaluation_speed", args, setup, names, work, Path(folder))
        summary |= {"samples": samples.describe(features, length), "logits": samples.compare_logits(folder, names)}
    report.add("evaluation", summary)


if __name__ == "__main__":
    run_main(main)
