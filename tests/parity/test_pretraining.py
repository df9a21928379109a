"""Pretraining against transformers' BertForPreTraining: logits, losses, gradients, whole steps, packed and padded."""

from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
import transformers
from mindspore import Tensor, nn

from models.common.nn.kernels import accelerate
from models.common.nn.networks import PretrainingNetwork
from models.common.nn.training import PretrainingEvaluationNetwork, PretrainingTrainingNetwork
from models.common.packing import pack
from models.common.tasks import pretrain
from models.common.weights.canonical import save_canonical
from models.common.weights.names import HUGGING_FACE_BERT
from tests.parity.test_bert_network import (
    CONFIGS,
    LENGTHS,
    ROWS,
    assert_close,
    assert_same_gradients,
    graph_mode,  # noqa: F401
)
from tests.parity.test_heads import PACKINGS, fill
from tests.parity.test_nezha import config_of, device_with_float16  # noqa: F401
from tests.weights_data import run as migrate

CONFIG = CONFIGS["bert"]
SLOTS, TARGETS = 4, 16  # samples a row, and targets a batch, have room for


class Everything(nn.Cell):
    """Losses, gradients of their sum, outputs, and what an evaluation gives, in one graph."""

    def __init__(self, network: PretrainingNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.training = network, PretrainingTrainingNetwork(network)
        self.evaluation = PretrainingEvaluationNetwork(network)
        self.gradients = mindspore.grad(self.training, None, network.trainable_params())

    def construct(self, ids, sequence_ids, types, positions, targets, *rest):
        inputs = (ids, sequence_ids, types, positions, targets, *rest)
        outputs = self.network(ids, sequence_ids, types, positions, targets)
        return self.training(*inputs), self.gradients(*inputs), outputs, self.evaluation(*inputs)


def pretraining_samples(seed: int, lengths: np.ndarray, vocabulary: int) -> SimpleNamespace:
    """Ragged samples of random tokens; some are targets, one sample has none."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = {
        "input_ids": rng.integers(1, vocabulary, starts[-1]).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, starts[-1]).astype(np.int32),
    }
    labels = rng.integers(0, vocabulary, starts[-1])
    hidden = rng.random(starts[-1]) < 0.2
    hidden[starts[1] : starts[2]] = False
    tokens["mlm_label"] = np.where(hidden, labels, -1).astype(np.int32)
    scalars = {"next_sentence_label": rng.integers(0, 2, len(lengths)).astype(np.int32)}
    return SimpleNamespace(tokens=tokens, starts=starts, scalars=scalars, lengths=np.asarray(lengths))


def torch_batch(samples: SimpleNamespace, width: int) -> dict[str, torch.Tensor]:
    """One padded batch of all samples, for transformers."""
    real = torch.arange(width) < torch.tensor(samples.lengths)[:, None]
    labels = np.where(samples.tokens["mlm_label"] >= 0, samples.tokens["mlm_label"], -100)
    ragged = {**samples.tokens, "labels": labels}
    batch = {"attention_mask": real.long()}
    for name in ("input_ids", "token_type_ids", "labels"):
        batch[name] = torch.full(real.shape, -100 if name == "labels" else 0)
        batch[name][real] = torch.tensor(ragged[name]).long()
    return batch | {"next_sentence_label": torch.tensor(samples.scalars["next_sentence_label"]).long()}


@pytest.fixture(scope="module", params=["plain", "kernels"])
def pair(request, tmp_path_factory):
    """Our network, and transformers' with its weights, which went through `migrate`."""
    network = PretrainingNetwork(CONFIG, SLOTS)
    tensors = fill(network)
    folder = tmp_path_factory.mktemp("weights")
    save_canonical(folder / "ours", CONFIG, tensors)
    migrate(folder / "ours", folder / "theirs", "canonical", "hf")
    model = transformers.BertForPreTraining.from_pretrained(folder / "theirs", attn_implementation="eager")
    cell = Everything(network)
    assert request.param == "plain" or accelerate(cell)
    return cell, model.eval()


@pytest.mark.parametrize("packing", PACKINGS)
def test_pretraining_is_that_of_transformers(pair, packing):
    cell, model = pair
    samples = pretraining_samples(5, LENGTHS, CONFIG.vocab_size)
    batch = pack(samples, PACKINGS[packing], row_length=20, row_count=len(LENGTHS))
    inputs = pretrain.training_inputs(samples, batch, SLOTS, TARGETS)
    losses, gradients, (words, relations), _ = cell(*map(Tensor, inputs))
    expected = model(**torch_batch(samples, 20))
    model.zero_grad()
    expected.loss.backward()
    count = int(inputs[6].sum())
    assert 8 < count < TARGETS
    for place, ours in zip(inputs[4][:count], words.asnumpy()[:count], strict=True):
        row, column = divmod(int(place), 20)
        here = np.flatnonzero((batch.rows == row) & (batch.begins <= column))[-1]
        their_words = expected.prediction_logits[batch.samples[here], column - batch.begins[here]]
        assert_close(ours, their_words.detach().numpy(), "logits")
    in_order = expected.seq_relationship_logits.detach().numpy()[batch.samples]
    assert_close(relations.asnumpy()[batch.rows, batch.slots], in_order, "logits")
    assert_close(losses.asnumpy().sum(), expected.loss.item(), "loss")
    names = [parameter.name for parameter in cell.network.trainable_params()]
    gradients = {name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)}
    peers = {HUGGING_FACE_BERT.to_canonical(name): p.grad.numpy() for name, p in model.named_parameters()}
    assert len(names) == len(peers)  # torch names the table once, though two layers have it
    assert_same_gradients(gradients, peers)


@pytest.mark.parametrize("packing", PACKINGS)
def test_scores_are_those_of_transformers(pair, packing):
    cell, model = pair
    tally, hits, losses, counts = pretrain.Tally(), np.zeros(2), np.zeros(2), np.zeros(2)
    for seed in (5, 6):
        samples = pretraining_samples(seed, LENGTHS, CONFIG.vocab_size)
        with torch.no_grad():
            output = model(**torch_batch(samples, 20))
        real = np.arange(20) < LENGTHS[:, None]
        words = output.prediction_logits.argmax(-1).numpy()[real]
        easy = (samples.tokens["mlm_label"] >= 0) & (np.arange(len(words)) % 2 == 0)
        samples.tokens["mlm_label"][easy] = words[easy]
        theirs = torch_batch(samples, 20)
        batch = pack(samples, PACKINGS[packing], row_length=20, row_count=len(LENGTHS))
        inputs = pretrain.training_inputs(samples, batch, SLOTS, TARGETS)
        tally.add(inputs, [output.asnumpy() for output in cell(*map(Tensor, inputs))[3]])
        both = (output.prediction_logits, "labels"), (output.seq_relationship_logits, "next_sentence_label")
        for which, (logits, name) in enumerate(both):
            labels = theirs[name]
            counted = labels != -100
            counts[which] += counted.sum()
            hits[which] += (logits.argmax(-1) == labels)[counted].sum()
            losses[which] += torch.nn.functional.cross_entropy(logits[counted], labels[counted], reduction="sum")
    assert (hits > 0).all() and (hits < counts).all()
    expected = [*(hits / counts), *(losses / counts)]
    assert list(tally.scores()) == list(pretrain.SCORES)
    assert list(tally.scores().values()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("device_with_float16")
def test_float16_gives_about_what_float32_gives():
    half, full = (PretrainingNetwork(config_of("none", compute), SLOTS, seed=1) for compute in ("float16", "float32"))
    samples = pretraining_samples(5, LENGTHS, 97)
    batch = pack(samples, ROWS, row_length=20)
    inputs = [Tensor(array) for array in pretrain.training_inputs(samples, batch, SLOTS, TARGETS)[:5]]
    for ours, theirs in zip(half(*inputs), full(*inputs), strict=True):
        assert ours.dtype == mindspore.float32
        assert_close(ours.asnumpy(), theirs.asnumpy(), "float16")
        assert (ours.asnumpy() != theirs.asnumpy()).any()
