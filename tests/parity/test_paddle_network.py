"""ERNIE against Paddle: hidden states, logits, losses and the gradient of every parameter, padded and packed."""

import numpy as np
import pytest
from mindspore import Tensor

from models.common.encoder_config import EncoderConfig
from models.common.nn.kernels import accelerate
from models.common.nn.networks import PretrainingNetwork
from models.common.packing import pack, unpack_tokens
from models.common.tasks import pretrain
from tests.paddle_peer import MASKS, PaddleErnie, paddle
from tests.parity.test_bert_network import (
    LENGTHS,
    NETWORK_INPUTS,
    assert_close,
    assert_same_gradients,
    graph_mode,  # noqa: F401
)
from tests.parity.test_heads import PACKINGS
from tests.parity.test_pretraining import SLOTS, TARGETS, Everything, pretraining_samples

WIDTH = 20  # of a row
# name -> layers, hidden size, with our CPU kernels
SIZES = {"2 layers": (2, 32, False), "2 layers, kernels": (2, 32, True), "12 layers, kernels": (12, 128, True)}


@pytest.fixture(scope="module", params=SIZES)
def pair(request):
    """Our network in a cell and Paddle's, with the same weights."""
    layers, hidden, kernels = SIZES[request.param]
    config = EncoderConfig(
        vocab_size=97, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=4 * hidden, max_position_embeddings=33, hidden_act="relu", layer_norm_eps=1e-5,
    )  # fmt: skip
    network = PretrainingNetwork(config, SLOTS)
    rng, tensors = np.random.default_rng(1), {}
    for name, parameter in network.parameters_dict().items():
        # As wide as keeps a dense layer's output the size of its input.
        values = rng.normal(0.0, hidden**-0.5, parameter.shape) + name.endswith("norm.weight")
        tensors[name] = values.astype(np.float32)
        parameter.set_data(Tensor(tensors[name]))
    cell = Everything(network)
    assert not kernels or accelerate(cell), "needs a C++ compiler"
    peer = PaddleErnie(config)
    peer.load(tensors)
    return cell, peer, config


def in_paddle(peer: PaddleErnie, samples, mask: str) -> tuple:
    """Hidden states, logits of words and relations, both losses; gradients are left in `peer`."""
    real = np.arange(WIDTH) < LENGTHS[:, None]
    arrays = {}
    for name, padding in (("input_ids", 0), ("token_type_ids", 0), ("mlm_label", -1)):
        arrays[name] = np.full(real.shape, padding, np.int64)
        arrays[name][real] = samples.tokens[name]
    states, pooled = peer(*map(paddle.to_tensor, (arrays["input_ids"], arrays["token_type_ids"], real)), mask)
    rows, places = np.nonzero(arrays["mlm_label"] >= 0)
    words = peer.words(states[-1][paddle.to_tensor(rows), paddle.to_tensor(places)])
    relations = peer.relation(pooled)
    labels = (arrays["mlm_label"][rows, places], samples.scalars["next_sentence_label"].astype(np.int64))
    losses = [
        paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(wanted))
        for logits, wanted in zip((words, relations), labels, strict=True)
    ]
    peer.clear_gradients()
    (losses[0] + losses[1]).backward()
    by_place = {(row, place): logits for row, place, logits in zip(rows, places, words.numpy(), strict=True)}
    return [state.numpy() for state in states], by_place, relations.numpy(), [loss.item() for loss in losses]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_ernie_is_that_of_paddle(pair, packing, mask):
    cell, peer, config = pair
    samples = pretraining_samples(5, LENGTHS, config.vocab_size)
    states, words, relations, losses = in_paddle(peer, samples, mask)
    batch = pack(samples, PACKINGS[packing], row_length=WIDTH, row_count=len(LENGTHS))
    inputs = pretrain.training_inputs(samples, batch, SLOTS, TARGETS)
    found, gradients, (our_words, our_relations), _ = cell(*map(Tensor, inputs))
    our_states = cell.network.hidden_states(*(Tensor(batch.arrays[name]) for name in NETWORK_INPUTS))
    for layer, (ours, theirs) in enumerate(zip(our_states, states, strict=True)):
        for sample, own in unpack_tokens(batch, ours.asnumpy(), LENGTHS):
            assert_close(own, theirs[sample, : LENGTHS[sample]], "hidden states", f"of {sample} after {layer}")
    count = int(inputs[6].sum())
    assert count == len(words) > 8
    for place, ours in zip(inputs[4][:count], our_words.asnumpy()[:count], strict=True):
        row, column = divmod(int(place), WIDTH)
        here = np.flatnonzero((batch.rows == row) & (batch.begins <= column))[-1]
        assert_close(ours, words[batch.samples[here], column - batch.begins[here]], "logits")
    assert_close(our_relations.asnumpy()[batch.rows, batch.slots], relations[batch.samples], "logits")
    assert_close(found.asnumpy(), losses, "loss")
    names = [parameter.name for parameter in cell.network.trainable_params()]
    ours = {name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)}
    assert_same_gradients(ours, peer.gradients())
