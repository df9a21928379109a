"""Evaluation speed at equal work: logits of the same windows of the same questions, here and in torch.

Ours packs windows into rows of one static shape (`models.common.runtime`); torch runs transformers on windows sorted by
length and padded to the longest of each batch, which is its best, and padded to the full length, which is its default.
Tokenizing and decoding are the same for all and not part of it.
"""

import argparse

import numpy as np

from benchmarks import sidebyside
from models.common.cli import run_main

TORCH_PADDED, TORCH_SORTED = "torch, padded", "torch, sorted by length"


def run_ours(setup: dict) -> None:
    """Worker: packed rows in MindSpore."""
    from benchmarks.training_speed import load_network
    from models.bert.run_squad import OUTPUTS
    from models.common.runtime.mindspore_runtime import MindSporeRuntime

    network = load_network(setup["weights"])
    runtime = MindSporeRuntime(network, OUTPUTS, setup["max_seq_length"], setup["rows"], setup["max_samples"])

    def predict() -> None:
        runtime.predict(setup["features"])

    sidebyside.serve({"rows_per_batch": setup["rows"]}, predict)


def run_torch(setup: dict, by_length: bool) -> None:
    """Worker: padded batches in transformers."""
    import torch
    from transformers import BertForQuestionAnswering

    features, size = setup["features"], setup["batch_size"]
    model = BertForQuestionAnswering.from_pretrained(setup["weights"]).eval()
    order = np.argsort(features.lengths, kind="stable") if by_length else np.arange(len(features))

    def predict() -> None:
        logits: list = [None] * len(features)
        with torch.inference_mode():
            for first in range(0, len(order), size):
                indices = order[first : first + size]
                length = int(features.lengths[indices].max()) if by_length else setup["max_seq_length"]
                arrays = features.padded(indices, length)
                names = ("input_ids", "attention_mask", "token_type_ids")
                output = model(**{name: torch.from_numpy(arrays[name]).long() for name in names})
                both = torch.stack([output.start_logits, output.end_logits]).numpy()
                for row, index in enumerate(indices):
                    logits[index] = both[:, row, : features.lengths[index]]

    sidebyside.serve({"batch_size": size, "attention": model.config._attn_implementation}, predict)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sidebyside.add_flags(parser, samples=256)
    parser.add_argument("--rows", type=int, default=8, help="rows of our batch")
    parser.add_argument("--max_samples", type=int, default=8, help="most samples of our rows")
    parser.add_argument("--batch_size", type=int, default=32, help="windows of torch's batch")
    args = parser.parse_args(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        run_ours(setup) if name == "ours" else run_torch(setup, by_length=name == TORCH_SORTED)
        return
    args = sidebyside.settle(args)
    features = sidebyside.draw_samples(args, is_training=False)
    names = ("weights", "rows", "max_samples", "batch_size", "max_seq_length")
    setup = {"features": features, **{name: getattr(args, name) for name in names}}
    work = {
        "questions": len(set(features.qas_ids)),
        "windows": len(features),
        "real_tokens": int(features.lengths.sum()),
    }
    sidebyside.race("benchmarks.evaluation_speed", args, argv, setup, ["ours", TORCH_SORTED, TORCH_PADDED], work)


if __name__ == "__main__":
    run_main(main)
