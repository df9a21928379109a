"""The calculation of docs/pretraining_at_scale.md: its counts against real networks, its formulas against a sum that is
carried out message by message."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForPreTraining

from benchmarks import scaling_model
from benchmarks.scaling_model import HOP_BETWEEN, HOP_INSIDE, SERVER_CARDS
from models.bert.config import NETWORKS
from models.common.nn.networks import PretrainingNetwork
from tests.tiny import TINY

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pretraining_at_scale.md"


def test_the_document_holds_what_the_command_writes(tmp_path):
    copy = tmp_path / "copy.md"
    copy.write_text(DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
    scaling_model.main(["--write", str(copy)])
    assert copy.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["base", "large"])
def test_gradients_are_those_of_the_network_in_transformers(name):
    encoder = NETWORKS.named(name)
    with torch.device("meta"):
        network = BertForPreTraining(BertConfig(**encoder.to_dict()))
    network.tie_weights()
    sizes = [parameter.numel() for parameter in network.parameters()]
    assert scaling_model.gradients(encoder) == scaling_model.Gradients(len(sizes), sum(sizes))


def test_gradients_are_those_of_our_network():
    sizes = [parameter.size for parameter in PretrainingNetwork(TINY, 2).trainable_params()]
    assert scaling_model.gradients(TINY) == scaling_model.Gradients(len(sizes), sum(sizes))


class Ring:
    """Cards that send parts of a vector around; float32 [cards, parts, ...], as many parts as cards."""

    def __init__(self, parts: np.ndarray) -> None:
        self.parts, self.sent, self.messages = parts, 0, 0  # bytes that a card sent; messages one behind the other

    def turn(self, first: int, add: bool) -> None:
        """Once around: card i begins with part i + first; parts are added, or replace what is there."""
        cards = len(self.parts)
        for message in range(cards - 1):
            places = [(card + first - message) % cards for card in range(cards)]
            moving = self.parts[range(cards), places].copy()
            for card, (place, part) in enumerate(zip(places, moving, strict=True)):
                target = self.parts[(card + 1) % cards]
                target[place] = target[place] + part if add else part
            self.sent += moving[0].nbytes
            self.messages += 1


@pytest.mark.parametrize("cards", [8, 16, 40])
def test_a_sum_carried_out_sends_and_waits_as_calculated(cards):
    servers = cards // SERVER_CARDS
    own = np.random.default_rng(3).integers(0, 99, (servers, SERVER_CARDS, SERVER_CARDS, servers, 2))
    own = own.astype(np.float32)  # [servers, cards, parts of a server, parts between servers, values]
    inside = [Ring(vectors.copy()) for vectors in own]
    for ring in inside:
        ring.turn(0, add=True)
    between = []
    for card in range(SERVER_CARDS):
        part = (card + 1) % SERVER_CARDS  # what a turn leaves whole with this card
        between.append(Ring(np.stack([ring.parts[card, part] for ring in inside])))
        between[-1].turn(0, add=True)
        between[-1].turn(1, add=False)
        for ring, whole in zip(inside, between[-1].parts, strict=True):
            ring.parts[card, part] = whole
    for ring in inside:
        ring.turn(1, add=False)
        np.testing.assert_array_equal(ring.parts, np.broadcast_to(own.sum(axis=(0, 1)), ring.parts.shape))
    values = own[0, 0].size
    assert scaling_model.sent_bytes(values, cards) == (inside[0].sent, between[0].sent)
    assert inside[0].sent + between[0].sent == pytest.approx(2 * (cards - 1) / cards * own[0, 0].nbytes)
    waiting = inside[0].messages * HOP_INSIDE.value + between[0].messages * HOP_BETWEEN.value
    assert scaling_model.waiting_ms(cards, ring=True) == pytest.approx(1e-3 * waiting)


def test_halving_and_doubling_reaches_all_servers_in_as_many_hops_as_calculated():
    for cards in scaling_model.CARDS:
        servers = cards // SERVER_CARDS
        known, hops = [{server} for server in range(servers)], 0
        while any(len(those) < servers for those in known):
            known = [those | known[server ^ 2**hops] for server, those in enumerate(known)]
            hops += 1
        inside = scaling_model.waiting_ms(SERVER_CARDS, ring=False)
        between = 2e-3 * hops * HOP_BETWEEN.value
        assert scaling_model.waiting_ms(cards, ring=False) == pytest.approx(inside + between)


def test_the_cases_are_in_order_and_longer_than_computing():
    found = scaling_model.gradients(NETWORKS.named("base"))
    for cards in scaling_model.CARDS:
        one_piece, written = scaling_model.all_reduce_ms(found, cards, scaling_model.ASCEND)
        for compute in (0.0, 20.0, 340.0):
            hidden, *after = scaling_model.step_ms(compute, one_piece, written)
            assert compute <= hidden <= after[0] == compute + one_piece < after[1] == compute + written
            assert hidden >= one_piece
