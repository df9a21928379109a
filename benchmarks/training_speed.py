"""Training speed at equal work: the same samples, the same model, one optimizer step per batch, here and in torch.

Ours trains packed rows in MindSpore graph mode; torch trains with transformers, once padded to the full length, once to
the longest sample of each batch. A step is everything: building the batch, forward, backward, clipping, AdamW.
"""

import argparse
from typing import Any

import numpy as np

from benchmarks import sidebyside
from models.common.cli import run_main

TORCH_PADDED, TORCH_DYNAMIC = "torch, padded", "torch, longest of batch"
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-5, 0.01, 1.0


def load_network(weights: str) -> Any:
    """The question-answering network in MindSpore, as the fine-tuning command builds it; a new head where none is."""
    from models.bert.config import SquadConfig
    from models.bert.run_squad import build
    from models.common.device import set_device
    from models.common.weights.reading import read_checkpoint

    set_device("CPU")
    return build(SquadConfig(), read_checkpoint(weights), new=("heads.span.*",))


def run_ours(setup: dict) -> None:
    """Worker: packed rows in MindSpore; every repetition is one epoch over the samples."""
    import mindspore as ms
    from mindspore import Tensor

    from models.bert.network import SpanTrainingNetwork
    from models.common.optim.optimizers import create
    from models.common.packing import fill_rate, pack
    from models.common.tasks.span import training_inputs
    from models.common.train.batches import BatchPlan
    from models.common.train.step import TrainStep, scalar

    features, length = setup["features"], setup["max_seq_length"]
    network = load_network(setup["weights"])
    optimizer = create("adamw", network.trainable_params(), WEIGHT_DECAY, 0.9, 0.999, 1e-8)
    step = TrainStep(SpanTrainingNetwork(network), optimizer, CLIP)
    plan = BatchPlan(features.lengths, length, setup["batch_size"], epochs=1, seed=0)

    def epoch() -> dict:
        losses = []
        for index in range(plan.total_steps):
            batch = pack(features, plan.step(index).rows, length, plan.rows_per_step)
            arrays = training_inputs(features, batch, plan.max_samples)
            settings = (Tensor([0, index], ms.int32), scalar(LEARNING_RATE), scalar(index + 1), scalar(1.0))
            loss, _, _ = step(*settings, *(Tensor(array) for array in arrays))
            losses.append(float(loss.asnumpy()))
        return {"mean_loss": float(np.mean(losses))}

    rows = plan.epoch_rows(0)
    steps = {"steps": plan.total_steps, "rows_per_step": plan.rows_per_step}
    sidebyside.serve({**steps, "fill_rate": fill_rate(features.lengths, rows, length)}, epoch)


def run_torch(setup: dict, dynamic: bool) -> None:
    """Worker: padded batches in transformers; every repetition is one epoch over the samples."""
    import torch
    from transformers import BertForQuestionAnswering

    from benchmarks.peer_squad_finetune import make_optimizer

    features, size = setup["features"], setup["batch_size"]
    model = BertForQuestionAnswering.from_pretrained(setup["weights"]).train()
    optimizer = make_optimizer(model, LEARNING_RATE, WEIGHT_DECAY)
    batches = np.array_split(np.arange(len(features)), -(-len(features) // size))

    def epoch() -> dict:
        losses = []
        for indices in batches:
            length = int(features.lengths[indices].max()) if dynamic else setup["max_seq_length"]
            arrays = features.padded(indices, length)
            batch = {name: torch.from_numpy(arrays[name]).long() for name in _INPUTS}
            labels = {
                f"{end}_positions": torch.from_numpy(arrays[f"{end}_position"]).long() for end in ("start", "end")
            }
            loss = model(**batch, **labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return {"mean_loss": float(np.mean(losses))}

    sidebyside.serve({"steps": len(batches), "attention": model.config._attn_implementation}, epoch)


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sidebyside.add_flags(parser, samples=64)
    parser.add_argument("--batch_size", type=int, default=16, help="samples a step (ours: on average)")
    args = parser.parse_args(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        run_ours(setup) if name == "ours" else run_torch(setup, dynamic=name == TORCH_DYNAMIC)
        return
    args = sidebyside.settle(args)
    features = sidebyside.draw_samples(args, is_training=True)
    setup = {
        "features": features,
        **{name: getattr(args, name) for name in ("weights", "batch_size", "max_seq_length")},
    }
    work = {"examples": len(features), "real_tokens": int(features.lengths.sum())}
    sidebyside.race("benchmarks.training_speed", args, argv, setup, ["ours", TORCH_DYNAMIC, TORCH_PADDED], work)


if __name__ == "__main__":
    run_main(main)
