"""What data-parallel pretraining of BERT would take on 8 to 1,024 cards: calculated, nothing is run.

`python -m benchmarks.scaling_model --write docs/pretraining_at_scale.md` puts the tables into that document, between
its lines `<!-- results -->` and `<!-- end of results -->`; what they mean and leave out stands there.

The gradients are added up in two levels, with g cards in a server, m servers and S bytes: inside a server each card
sends 2 (g-1)/g S; between servers, with the cards of its place in the others, 2 (m-1)/m S/g. That is 2 (n-1)/n S
together, as in one ring of n = g m cards. Each message waits for a hop. Three cases: "in one piece", as
models/common/train/step.py asks MindSpore for it, with halving and doubling between servers, and nothing computed
meanwhile; "hidden", the same beside the computation; "one by one", an AllReduce for each tensor, here in rings, if
MindSpore does not do as it is asked.
"""

import argparse
from dataclasses import dataclass
from math import ceil, log2, prod
from pathlib import Path

from benchmarks.table import markdown, number, publish
from models.bert.config import NETWORKS
from models.common.cli import run_main
from models.common.encoder_config import EncoderConfig
from models.common.weights.names import canonical_shapes

CARDS = (8, 16, 64, 256, 1024)
SERVER_CARDS = 8
HEADS = ("pooler", "heads.mlm", "heads.nsp")  # what models.common.nn.networks.PretrainingNetwork has beside the encoder
VALUE_BYTES = 4  # gradients, parameters and moments are float32
STATE_VALUES = 3  # a parameter and its two moments (AdamW, LAMB)
# int32 columns of a sample in the original's files: three of 128 tokens, three of 20 targets, the next sentence.
SAMPLE_BYTES = 4 * (3 * 128 + 3 * 20 + 1)

CASES = "hidden / in one piece / one by one"


@dataclass(frozen=True)
class Quoted:
    """A number that others give; none of them was measured here. `source` is Markdown."""

    what: str
    value: float
    unit: str
    source: str


CARD_BATCH = 256
STEP = Quoted(
    f"a step of BERT-base, {CARD_BATCH} samples of 128 tokens on each of 8 Ascend 910", 340, "ms",
    "the README of the original (MindSpore ModelZoo, official/nlp/Bert), MindSpore 0.6.0",
)  # fmt: skip
HCCS = Quoted(
    "Ascend 910, from card to card of a server (HCCS)", 18, "GB/s",
    "what Huawei's profiler msprof counts as full speed (`HCCS_BANDWIDTH_V2_1_0` in "
    "analysis/common_func/ms_constant/number_constant.py); PCIe, between the two groups of four, has 20 there",
)  # fmt: skip
ROCE = Quoted(
    "Ascend 910, between servers: a port of 100 Gb/s for each card", 12.5, "GB/s",
    "the same file, `RDMA_BANDWIDTH_V2_1_0`; a port for each of the eight: [MindCluster, Ascend "
    "Deployer](https://www.hiascend.com/document/detail/zh/mindcluster/730/deployer/deployerug/deployer_0025.html)",
)  # fmt: skip
NVLINK = Quoted(
    "DGX A100, inside (NVLink 3: 600 GB/s, both directions together)", 235, "GB/s",
    "600: NVIDIA's entry to MLPerf Training v0.7 (systems/dgxa100_n128_ngc20.06_pytorch.json); 235: the most that NCCL "
    "expects of it (src/graph/tuning.cc, `compCap80`)",
)  # fmt: skip
INFINIBAND = Quoted(
    "DGX A100, between servers: a port of 200 Gb/s for each card", 25, "GB/s", "the same entry to MLPerf"
)
HOP_INSIDE = Quoted(
    "a hop inside a server", 3.4, "µs",
    "NCCL's own cost model (src/graph/tuning.cc, `hwLat`, Ring, Simple, NVLink); **assumed for HCCS, too**: no figure "
    "of Huawei's for the 910 was found",
)  # fmt: skip
HOP_BETWEEN = Quoted("a hop between servers", 9.6, "µs", "the same, network; **assumed for RoCE, too**")
LAMB_BATCH = Quoted(
    "the largest batch that LAMB was published with", 65536, "samples",
    "You et al. 2019, [arXiv 1904.00962](https://arxiv.org/abs/1904.00962), abstract of the first version: 65536/32768",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """Speeds of one card: to the others of its server, and to those of other servers."""

    name: str
    inside: Quoted
    between: Quoted


ASCEND, NVIDIA = Server("Ascend 910", HCCS, ROCE), Server("DGX A100", NVLINK, INFINIBAND)


@dataclass(frozen=True)
class Gradients:
    """What the workers of a step add up: so many tensors with so many values together."""

    tensors: int
    values: int

    @property
    def calls(self) -> int:
        """AllReduces of a step, one by one: for each tensor, and for the loss."""
        return self.tensors + 1


def gradients(encoder: EncoderConfig) -> Gradients:
    """Those of PretrainingNetwork with this encoder."""
    sizes = [prod(shape) for shape in canonical_shapes(encoder, HEADS).values()]
    return Gradients(len(sizes), sum(sizes))


def sent_bytes(values: int, cards: int) -> tuple[float, float]:
    """What one card sends to add up float32 `values`: inside its server, and between servers."""
    servers, own = cards // SERVER_CARDS, VALUE_BYTES * values / SERVER_CARDS
    return 2 * (SERVER_CARDS - 1) * own, 2 * (servers - 1) / servers * own


def transfer_ms(values: int, cards: int, server: Server) -> float:
    """How long that takes at full speed, one level behind the other."""
    inside, between = sent_bytes(values, cards)
    return 1e-6 * (inside / server.inside.value + between / server.between.value)


def waiting_ms(cards: int, ring: bool) -> float:
    """The hops of one AllReduce: between servers in a ring, or with halving and doubling."""
    servers = cards // SERVER_CARDS
    between = servers - 1 if ring else ceil(log2(servers))
    return 2e-3 * ((SERVER_CARDS - 1) * HOP_INSIDE.value + between * HOP_BETWEEN.value)


def all_reduce_ms(found: Gradients, cards: int, server: Server) -> tuple[float, float]:
    """In one piece, and one by one: sending and waiting."""
    transfer = transfer_ms(found.values, cards, server)
    return transfer + waiting_ms(cards, ring=False), transfer + found.calls * waiting_ms(cards, ring=True)


def step_ms(compute: float, one_piece: float, separate: float) -> tuple[float, float, float]:
    """Hidden in the computation, which takes `compute`; in one piece after it; one by one after it."""
    return max(compute, one_piece), compute + one_piece, compute + separate


def quoted() -> str:
    """The numbers that go in."""
    numbers = (STEP, HCCS, ROCE, NVLINK, INFINIBAND, HOP_INSIDE, HOP_BETWEEN, LAMB_BATCH)
    rows = [(n.what, f"{n.value:,g} {n.unit}", n.source) for n in numbers]
    return markdown(("number", "value", "who says so"), rows)


def networks(found: dict[str, Gradients]) -> str:
    """What there is to add up, and to save."""
    rows = [
        (name, f"{g.values:,}", str(g.tensors), number(1e-6 * VALUE_BYTES * g.values),
         number(1e-6 * VALUE_BYTES * STATE_VALUES * g.values))
        for name, g in found.items()
    ]  # fmt: skip
    return markdown(("network", "parameters", "tensors", "gradients, MB", "a full state on disk, MB"), rows)


def traffic(found: dict[str, Gradients]) -> str:
    """One sum over all cards."""
    rows = []
    for name, own in found.items():
        for cards in CARDS:
            inside, between = (1e-6 * sent for sent in sent_bytes(own.values, cards))
            times = [transfer_ms(own.values, cards, server) for server in (ASCEND, NVIDIA)]
            waiting = waiting_ms(cards, ring=False), own.calls * waiting_ms(cards, ring=True)
            rows.append([name, f"{cards:,}", number(inside + between), number(between), *map(number, times),
                         cases(*waiting)])  # fmt: skip
    sending = (f"sending, ms: {server.name}" for server in (ASCEND, NVIDIA))
    columns = ("network", "cards", "MB a card sends", "of it between servers", *sending,
               "waiting, ms: in one piece / one by one")  # fmt: skip
    return markdown(columns, rows)


def steps(found: Gradients, card_batches: dict[int, int]) -> str:
    """Whole steps on Ascend 910, for cards -> samples of each in a step."""
    rows = []
    for cards, batch in card_batches.items():
        compute = STEP.value * batch / CARD_BATCH
        all_reduce = all_reduce_ms(found, cards, ASCEND)
        step = step_ms(compute, *all_reduce)
        rates = (1e3 * cards * batch / ms for ms in step)
        shares = (f"{100 * compute / ms:.0f}" for ms in step)
        rows.append([f"{cards:,}", f"{batch:,}", str(max(1, batch // CARD_BATCH)), f"{cards * batch:,}",
                     cases(*all_reduce), cases(*step), cases(*rates), " / ".join(shares)])  # fmt: skip
    columns = ("cards", "samples a card", "parts", "samples a step", "AllReduce, ms: in one piece / one by one",
               "step, ms", "samples/s", "efficiency, %")  # fmt: skip
    return markdown(columns, rows)


def cases(*values: float) -> str:
    """One quantity in several cases."""
    return " / ".join(map(number, values))


def reading() -> str:
    """What the files must give."""
    rate = 1e3 * CARD_BATCH / STEP.value
    one = 1e-6 * rate * SAMPLE_BYTES
    return (
        f"Reading: {number(rate)} samples/s a card, {SAMPLE_BYTES:,} bytes each, are {number(one)} MB/s a card and "
        f"{number(1e-3 * CARDS[-1] * one)} GB/s for {CARDS[-1]:,}."
    )


def document() -> str:
    """All tables."""
    found = {name: gradients(NETWORKS.named(name)) for name in ("base", "large")}
    weak, strong = dict.fromkeys(CARDS, CARD_BATCH), {cards: LAMB_BATCH.value // cards for cards in CARDS}
    parts = {
        "What goes in": quoted(),
        "What there is to add up": networks(found),
        "One sum over all cards": traffic(found),
        f"BERT-base on Ascend 910, {CARD_BATCH} samples a card ({CASES})": steps(found["base"], weak),
        f"The same, {LAMB_BATCH.value:,} samples a step on any number of cards ({CASES})": steps(found["base"], strong),
    }
    return "\n\n".join([*(f"**{title}**\n\n{part}" for title, part in parts.items()), reading()])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_model", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables into this file")
    publish(document(), parser.parse_args(argv).write)


if __name__ == "__main__":
    run_main(main)
