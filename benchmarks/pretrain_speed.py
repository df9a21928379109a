"""Pretraining speed at equal work: the same samples, the same weights, the same losses, here and in torch.

Ours trains packed rows, and padded ones of a sample each, in MindSpore graph mode. torch trains transformers'
BertForPreTraining: as it comes, with logits of words at every position, padded to the full length or to the longest
sample of each batch; and with words at the targets alone, as ours has them, padded to the full length or with each
batch computed in parts of similar length: the faster of these two is its best. A step is everything: building the
batch, forward, backward, clipping, AdamW. Before the race all compute logits of all samples without dropout, which must
agree; the mean losses of the first epoch after the warm-up must, too.

One race gives two comparisons: "packed" is ours against all others, ours without packing among them; "equal shapes" is
ours without packing against torch padded to the same shapes.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import epochs, pretrain_samples, samples, sidebyside
from data_tools.feature_store import FeatureSet, load_features
from models.common.cli import run_main
from models.common.tasks.pretrain import target_counts, training_inputs
from models.common.train.streams import StreamData, StreamPlan
from models.common.train.workers import Workers

MODULE = "benchmarks.pretrain_speed"
# Contender -> most samples in a row.
OURS = {"ours": 8, "ours, padded": 1}
PART = 16  # samples that torch computes at once where it may choose
WORD_STRIDE = 1000  # of the words' logits one in so many is compared

# Indices of samples [N], logits of words at their targets [P, V], logits of their relations [N, 2].
Logits = tuple[np.ndarray, np.ndarray, np.ndarray]


class Way(NamedTuple):
    """How torch computes a batch."""

    words: str
    full_length: bool
    part: int | None = None


EVERYWHERE, AT_TARGETS = "at every position", "at the targets"
TORCH = {
    "torch, parts of like length": Way(AT_TARGETS, full_length=False, part=PART),
    "torch, padded, targets only": Way(AT_TARGETS, full_length=True),
    "torch, longest of batch": Way(EVERYWHERE, full_length=False),
    "torch, padded": Way(EVERYWHERE, full_length=True),
}
EQUAL_SHAPES = ("ours, padded", "torch, padded, targets only", "torch, padded")


class InMemory:
    """Stands for a `Corpus` of one stream with one window."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.data = StreamData((0,), 1, 1, lambda *_: (features.lengths, target_counts(features)))

    def window(self, *_: int) -> FeatureSet:
        """All samples."""
        return self.features


def run_ours(name: str, setup: dict[str, Any]) -> None:
    """Worker: rows in MindSpore, made as the pretraining command makes them."""
    from models.common.nn.kernels.switch import accelerate
    from models.common.nn.training import PartOfStep, PretrainingTrainingNetwork
    from models.common.pretrain.batches import PretrainingBatches

    features, length = setup["features"], setup["length"]
    corpus = InMemory(features)
    plan = plan_steps(corpus, setup, OURS[name])
    network = load_network(setup["folder"], plan.max_samples)
    training = PartOfStep(PretrainingTrainingNetwork(network))
    accelerate(training)
    save_logits(setup["folder"], name, our_logits(network, plan, features), features)
    step = epochs.make_step(training)
    makers = PretrainingBatches(corpus, plan, 1, Workers())

    def batches() -> Iterator[tuple[list[np.ndarray], int, int]]:
        for index in range(plan.total_steps):
            arrays, count = makers.inputs(plan.step(index))
            _, _, sequence_ids, *_ = arrays
            yield arrays, count, int((sequence_ids > 0).sum())

    positions = plan.total_steps * plan.rows_per_part * length
    description = {
        "steps": plan.total_steps, "rows_per_step": plan.rows_per_part, "words": AT_TARGETS,
        "fill_rate": float(features.lengths.sum() / positions),
    }  # fmt: skip
    sidebyside.serve(description, lambda: epochs.our_epoch(step, batches()))


def plan_steps(corpus: InMemory, setup: dict[str, Any], max_samples: int) -> StreamPlan:
    """An epoch in no more steps than torch has batches. A last step that is nearly empty, of which a long training has
    one in thousands, would be one of few here."""
    batches = -(-len(corpus.features) // setup["batch_size"])

    def planned(size: int) -> StreamPlan:
        return StreamPlan(corpus.data, (setup["length"],), size, 1, setup["seed"], Workers(), max_samples=max_samples)

    return next(plan for plan in map(planned, itertools.count(setup["batch_size"])) if plan.total_steps <= batches)


def load_network(folder: str, max_samples: int) -> Any:
    """Our network with the weights that all have."""
    from models.bert.config import NETWORKS
    from models.common.device import set_device
    from models.common.weights.loading import load_into
    from models.common.weights.names import idle_tensors
    from models.common.weights.reading import read_checkpoint

    set_device("CPU")
    checkpoint = read_checkpoint(Path(folder, "hf"))
    network = NETWORKS.pretraining(checkpoint.config, max_samples, 0)
    load_into(network, checkpoint.tensors, allow_unused=idle_tensors(checkpoint.config))
    return network


def our_logits(network: Any, plan: StreamPlan, features: FeatureSet) -> Iterator[Logits]:
    """Step by step, without dropout."""
    from mindspore import Tensor

    from models.common.packing import pack

    network.set_train(False)
    [length], [most] = plan.row_lengths, plan.most_targets
    for index in range(plan.total_steps):
        batch = pack(features, plan.step(index).parts[0].rows, length, plan.rows_per_part)
        inputs = training_inputs(features, batch, plan.max_samples, plan.rows_per_part * most)
        words, relations = (output.asnumpy() for output in network(*map(Tensor, inputs[:5])))
        yield batch.samples, words[inputs[6] > 0], relations[batch.rows, batch.slots]


def run_torch(name: str, setup: dict[str, Any]) -> None:
    """Worker: padded batches in transformers; every repetition is one epoch over the samples."""
    import torch
    from transformers import BertForPreTraining

    from benchmarks import torch_pretrainer
    from benchmarks.peer_squad_finetune import make_optimizer

    torch.manual_seed(setup["seed"])
    features, way = setup["features"], TORCH[name]
    length = setup["length"] if way.full_length else None
    model = BertForPreTraining.from_pretrained(Path(setup["folder"], "hf")).eval()
    forward = torch_pretrainer.everywhere if way.words == EVERYWHERE else torch_pretrainer.at_targets
    batches = partial(epochs.torch_batches, features, setup["batch_size"], length, way.part)
    with torch.inference_mode():
        save_logits(setup["folder"], name, torch_logits(model, forward, batches()), features)
    model.train()
    optimizer = make_optimizer(model, epochs.LEARNING_RATE, epochs.WEIGHT_DECAY)
    backward = partial(torch_pretrainer.backward, model, forward)
    description = {
        "steps": len(list(batches())), "attention": model.config._attn_implementation, "words": way.words,
        "samples_at_once": way.part or setup["batch_size"],
    }  # fmt: skip
    sidebyside.serve(description, lambda: epochs.torch_epoch(model, optimizer, batches(), backward))


def torch_logits(model: Any, forward: Any, batches: Iterable[list[epochs.Part]]) -> Iterator[Logits]:
    """Part by part."""
    for part in (part for batch in batches for part in batch):
        words, labels, relations = forward(model, part)
        yield part["index"], words[labels >= 0].numpy(), relations.numpy()


def save_logits(folder: str, name: str, pieces: Iterable[Logits], features: FeatureSet) -> None:
    """A worker's proof of work: of each sample some of the words' logits at its targets, and its relation's."""
    counts = target_counts(features)
    of_sample: list[Any] = [None] * len(features)
    for indices, words, relations in pieces:
        of_targets = np.split(words[:, ::WORD_STRIDE], np.cumsum(counts[indices])[:-1])
        for index, own, relation in zip(indices, of_targets, relations, strict=True):
            of_sample[index] = np.append(own, relation)
    samples.save_proof(folder, name, np.concatenate(of_sample))


def draw(args: argparse.Namespace) -> FeatureSet:
    """`args.samples` samples of the corpus, drawn at random."""
    with tempfile.TemporaryDirectory() as folder:
        features = load_features(pretrain_samples.convert(args, Path(folder), shards=1))
        return samples.choose(features, args, args.data_file or Path("the generated corpus"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    pretrain_samples.add_flags(parser, repetitions=5)
    parser.add_argument("--samples", type=int, default=128, help="samples of one repetition")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        (run_ours if name in OURS else run_torch)(name, setup)
        return
    report = sidebyside.Report(MODULE, args, argv)
    encoder = pretrain_samples.settle(args, ("samples",))
    if args.quick:
        args.samples = min(args.samples, 6)
    features = draw(args)
    work = {"real_tokens": int(features.lengths.sum()), "examples": len(features)}
    names = [*OURS, *TORCH]
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.torch_pretrainer import make_weights

        make_weights(encoder, Path(folder, "hf"), args.seed)
        setup = {
            "features": features, "length": args.max_seq_length, "batch_size": args.batch_size, "seed": args.seed
        }  # fmt: skip
        race = sidebyside.measure(MODULE, args, setup, names, work, Path(folder))
        proof = {
            "samples": samples.describe(features, args.max_seq_length),
            "logits": samples.compare_logits(folder, names),
        }
    epochs.check_losses(race, work)
    report.add("packed", race | proof)
    equal = {name: race["contenders"][name] for name in EQUAL_SHAPES}
    report.add("equal shapes", sidebyside.summarise(equal, 1, work))


if __name__ == "__main__":
    run_main(main)
