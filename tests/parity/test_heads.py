"""Classification and tagging against transformers: logits, loss and all gradients, padded and packed."""

from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from models.common.export.mindir import load_graph, write_mindir
from models.common.nn.dropout import Dropout
from models.common.nn.losses import classification_loss, regression_loss, tagging_loss
from models.common.nn.networks import ClassificationNetwork, TaggingNetwork
from models.common.nn.training import ClassificationTrainingNetwork, TaggingTrainingNetwork
from models.common.packing import pack, unpack_tokens
from tests.parity.test_bert_network import (
    CONFIGS,
    LENGTHS,
    NETWORK_INPUTS,
    ROWS,
    assert_close,
    assert_same_gradients,
    graph_mode,  # noqa: F401
    peer_gradients,
    torch_model,
)
from tests.parity.test_crf import viterbi
from tests.tolerances import TOLERANCES

CONFIG = CONFIGS["bert"]
SLOTS, LABELS = 4, 5
ALONE = tuple((sample,) for sample in range(len(LENGTHS)))  # a padded batch: one sample a row
PACKINGS = {"packed": ROWS, "padded": ALONE}  # rows of samples
COUNT = len(ALONE)  # of rows in a batch; the same for all, so that one graph serves them


class Everything(nn.Cell):
    """Loss, gradients and outputs in one graph."""

    def __init__(self, network: nn.Cell, training: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss_and_gradients = mindspore.value_and_grad(training, None, network.trainable_params())

    def construct(self, ids, sequence_ids, types, positions, *rest):
        loss, gradients = self.loss_and_gradients(ids, sequence_ids, types, positions, *rest)
        return loss, gradients, self.network(ids, sequence_ids, types, positions)


def run(cell: Everything, arrays: dict[str, np.ndarray], *rest: np.ndarray) -> SimpleNamespace:
    loss, gradients, outputs = cell(*(Tensor(arrays[name]) for name in NETWORK_INPUTS), *map(Tensor, rest))
    names = [parameter.name for parameter in cell.network.trainable_params()]
    gradients = {name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)}
    return SimpleNamespace(loss=loss.asnumpy(), gradients=gradients, outputs=outputs.asnumpy())


def fill(network: nn.Cell) -> dict[str, np.ndarray]:
    """Random weights, large enough for softmax and tanh to leave their linear range, into `network`."""
    rng, tensors = np.random.default_rng(1), {}
    for name, parameter in network.parameters_dict().items():
        values = rng.normal(0.0, 0.3, parameter.shape) + name.endswith("norm.weight")
        tensors[name] = values.astype(np.float32)
        parameter.set_data(Tensor(tensors[name]))
    return tensors


@pytest.fixture(scope="module")
def samples():
    """Eight samples of 1 to 12 tokens."""
    rng = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    tokens = {
        "input_ids": rng.integers(1, CONFIGS["ernie"].vocab_size, starts[-1]).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, starts[-1]).astype(np.int32),
    }
    tags = rng.integers(0, LABELS, starts[-1]).astype(np.int32)
    classes = rng.integers(0, LABELS, len(LENGTHS)).astype(np.int32)
    numbers = rng.normal(2.0, 2.0, len(LENGTHS)).astype(np.float32)
    return SimpleNamespace(tokens=tokens, starts=starts, scalars={}, tags=tags, classes=classes, numbers=numbers)


def torch_batch(samples: SimpleNamespace, tags: bool = False) -> dict[str, torch.Tensor]:
    """One padded batch of all samples, for transformers."""
    real = torch.arange(20) < torch.tensor(LENGTHS)[:, None]
    batch = {"attention_mask": real.long()}
    ragged = {**samples.tokens, "labels": samples.tags} if tags else samples.tokens
    for name, values in ragged.items():
        batch[name] = torch.full(real.shape, -100 if name == "labels" else 0)
        batch[name][real] = torch.tensor(values).long()
    return batch


def packed_tags(samples: SimpleNamespace, batch) -> np.ndarray:
    """[R, T], with what is no label at padding."""
    tags = np.full(batch.arrays["input_ids"].shape, -100, np.int32)
    for sample, row, begin in zip(batch.samples, batch.rows, batch.begins, strict=True):
        own = samples.tags[samples.starts[sample] : samples.starts[sample + 1]]
        tags[row, begin : begin + len(own)] = own
    return tags


@pytest.fixture(scope="module", params=[("bert", "classes"), ("bert", "numbers"), ("ernie", "classes")], ids="-".join)
def classifier(request):
    """A classification, or a regression, and transformers' model."""
    family, kind = request.param
    outputs = LABELS if kind == "classes" else 1
    network = ClassificationNetwork(CONFIGS[family], outputs, SLOTS)
    tensors = fill(network)
    cell = Everything(network, ClassificationTrainingNetwork(network))
    model = torch_model("ForSequenceClassification", CONFIGS[family], tensors, num_labels=outputs)
    return cell, tensors, model, kind


@pytest.mark.parametrize("packing", PACKINGS)
def test_classification_is_that_of_transformers(classifier, samples, packing):
    cell, tensors, model, kind = classifier
    labels = getattr(samples, kind)
    batch = pack(samples, PACKINGS[packing], row_length=20, row_count=COUNT)
    grids = [batch.per_sample_grid(v[batch.samples], SLOTS) for v in (labels, np.ones(len(LENGTHS), np.float32))]
    result = run(cell, batch.arrays, *grids)
    assert result.outputs.shape == (COUNT, SLOTS, 1 if kind == "numbers" else LABELS)
    expected = model(
        **torch_batch(samples), labels=torch.tensor(labels).long() if kind == "classes" else torch.tensor(labels)
    )
    ours = result.outputs[batch.rows, batch.slots]
    assert_close(ours, expected.logits.detach().numpy()[batch.samples], "logits")
    assert_close(result.loss, expected.loss.item(), "loss")
    model.zero_grad()
    expected.loss.backward()
    assert_same_gradients(result.gradients, peer_gradients(model, tensors))


@pytest.mark.parametrize("packing", PACKINGS)
def test_tagging_is_that_of_transformers(tagger, samples, packing):
    cell, tensors, model = tagger
    batch = pack(samples, PACKINGS[packing], row_length=20, row_count=COUNT)
    result = run(cell, batch.arrays, packed_tags(samples, batch))
    expected = model(**torch_batch(samples, tags=True))
    for sample, ours in unpack_tokens(batch, result.outputs, LENGTHS):
        assert_close(ours, expected.logits[sample, : LENGTHS[sample]].detach().numpy(), "logits", f"of {sample}")
    assert_close(result.loss, expected.loss.item(), "loss")
    model.zero_grad()
    expected.loss.backward()
    assert_same_gradients(result.gradients, peer_gradients(model, tensors))


@pytest.fixture(scope="module", params=["bert", "ernie"])
def tagger(request):
    network = TaggingNetwork(CONFIGS[request.param], LABELS, SLOTS)
    tensors = fill(network)
    model = torch_model("ForTokenClassification", CONFIGS[request.param], tensors, num_labels=LABELS)
    return Everything(network, TaggingTrainingNetwork(network)), tensors, model


def test_field_over_lstm_in_a_network(samples):
    """The parts are proved elsewhere. Here: the path is the best one for the network's own scores, the loss is -log p
    of the labels for these, and how samples are packed changes neither."""
    network = TaggingNetwork(CONFIG, LABELS, SLOTS, crf=True, lstm=True)
    tensors = fill(network)
    cell = Everything(network, TaggingTrainingNetwork(network))
    field = {name: torch.tensor(tensors[f"heads.crf.{name}"]).double() for name in ("transitions", "start", "end")}
    results = {}
    for packing, rows in PACKINGS.items():
        batch = pack(samples, rows, row_length=20, row_count=COUNT)
        result = run(cell, batch.arrays, packed_tags(samples, batch))
        hidden = network.hidden_states(*(Tensor(batch.arrays[name]) for name in NETWORK_INPUTS))[-1]
        scores = network.heads.scores(hidden, Tensor(batch.arrays["sequence_ids"])).asnumpy()
        paths, losses = dict(unpack_tokens(batch, result.outputs, LENGTHS)), []
        for sample, own in unpack_tokens(batch, scores, LENGTHS):
            best = viterbi(own.astype(np.float64), {name: value.numpy() for name, value in field.items()})
            np.testing.assert_array_equal(paths[sample], best)
            tags = samples.tags[samples.starts[sample] : samples.starts[sample + 1]]
            losses.append(negative_log_likelihood(torch.tensor(own).double(), tags, field))
        assert_close(result.loss, np.mean(losses), "loss")
        results[packing] = (result, paths)
    for sample, path in results["padded"][1].items():
        np.testing.assert_array_equal(results["packed"][1][sample], path)
    packed, padded = (results[packing][0] for packing in ("packed", "padded"))
    assert_close(packed.loss, padded.loss, "packing")
    for name, gradient in padded.gradients.items():
        assert_close(packed.gradients[name], gradient, "gradients", name)


def negative_log_likelihood(scores: torch.Tensor, tags: np.ndarray, field: dict[str, torch.Tensor]) -> float:
    total = field["start"] + scores[0]
    given = field["start"][tags[0]] + field["end"][tags[-1]] + sum(s[tag] for s, tag in zip(scores, tags, strict=True))
    for before, tag, score in zip(tags[:-1], tags[1:], scores[1:], strict=True):
        total = torch.logsumexp(total[:, None] + field["transitions"], 0) + score
        given = given + field["transitions"][before, tag]
    return float(torch.logsumexp(total + field["end"], 0) - given)


@pytest.mark.parametrize(
    "network",
    [ClassificationNetwork(CONFIG, 3, 2), TaggingNetwork(CONFIG, 3, 2, crf=True, lstm=True)],
    ids=["classification", "tagging"],
)
def test_the_dropout_of_a_head_has_a_stream_of_its_own(network):
    sites = [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]
    assert len(sites) == 2 + 3 * CONFIG.num_hidden_layers
    assert len({cell.stream for cell in sites}) == len(sites)
    assert network.heads.dropout in sites and network.heads.dropout.rate == CONFIG.hidden_dropout_prob


def test_a_batch_without_samples_costs_nothing():
    logits, zeros = Tensor(np.ones((2, 3, 4), np.float32)), Tensor(np.zeros((2, 3), np.float32))
    nothing = Tensor(np.zeros((2, 3), np.int32))
    assert float(classification_loss(logits, nothing, zeros)) == 0.0
    assert float(regression_loss(logits[:, :, :1], zeros, zeros)) == 0.0
    assert float(tagging_loss(logits, nothing, nothing)) == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassificationNetwork(CONFIG, LABELS, SLOTS),
        lambda: TaggingNetwork(CONFIG, LABELS, SLOTS, crf=True),
        lambda: TaggingNetwork(CONFIG, LABELS, SLOTS, crf=True, lstm=True),
    ],
    ids=["classification", "field", "field over LSTM"],
)
def test_exported_graphs_are_flat_and_give_the_same(make, samples, tmp_path):
    """Decoding included: a graph without control flow, whose answers are the network's."""
    network = make()
    fill(network)
    batch = pack(samples, ROWS, row_length=20, row_count=4)
    path = tmp_path / "graph.mindir"
    write_mindir(network, dict.fromkeys(NETWORK_INPUTS, (4, 20)), path, lite=False)
    assert not ModelProto.FromString(path.read_bytes()).functions
    inputs = [Tensor(batch.arrays[name]) for name in NETWORK_INPUTS]
    ours, theirs = load_graph(path)(*inputs).asnumpy(), network(*inputs).asnumpy()
    rtol, atol, _ = TOLERANCES["logits"]
    np.testing.assert_allclose(ours, theirs, rtol, atol)
    assert len(np.unique(theirs)) > 2
