"""What the benchmarks of pretraining share: their flags, the network they train, and samples made of a corpus."""

import argparse
import math
from pathlib import Path

from benchmarks import sidebyside
from benchmarks.pretrain_data import data_file
from benchmarks.samples import QUICK_LENGTH
from data_tools.convert import PretrainConversion, convert_pretrain
from data_tools.features.masking import Masking
from data_tools.features.pretrain import PretrainOptions
from models.bert.config import NETWORKS
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_text
from models.common.pretrain.running import starting_point
from models.common.pretrain.settings import PretrainConfig
from models.common.weights.embedded import minilm_folder


def add_flags(parser: argparse.ArgumentParser, repetitions: int) -> None:
    """The flags of both."""
    sidebyside.add_flags(parser, repetitions, data="a corpus, one sentence a line; a generated one")
    parser.add_argument("--network", default="small", help="a network of networks.yaml, or a config.json")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--batch_size", type=int, default=32, help="samples a step (packed: on average)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, dropout and order")


def settle(args: argparse.Namespace, positive: tuple[str, ...]) -> EncoderConfig:
    """Check the flags, of which --quick lowers some; returns the network's config."""
    sidebyside.check(args, ("repetitions", "max_seq_length", "batch_size", *positive))
    if args.quick:
        args.max_seq_length, args.repetitions = min(args.max_seq_length, QUICK_LENGTH), 1
    words = len(read_text(vocabulary()).splitlines())
    encoder = starting_point(PretrainConfig(network=args.network, vocab_size=words), NETWORKS).encoder
    if args.max_seq_length > encoder.max_position_embeddings:
        raise UserError(f"--max_seq_length {args.max_seq_length}: --network {args.network} has positions for "
                        f"{encoder.max_position_embeddings}")  # fmt: skip
    return encoder


def vocabulary() -> Path:
    """The embedded MiniLM's, which is that of uncased English BERT; the network's word table has its size."""
    return minilm_folder() / "vocab.txt"


def convert(args: argparse.Namespace, folder: Path, shards: int) -> Path:
    """Make the features of the corpus in `folder`; returns where they are."""
    # BERT's 20 targets for 128 tokens, 77 for 512.
    masking = Masking(max_predictions_per_seq=math.ceil(Masking.masked_lm_prob * args.max_seq_length))
    options = PretrainOptions(max_seq_length=args.max_seq_length, masking=masking)
    conversion = PretrainConversion(
        (data_file(args, folder),), vocabulary(), folder / "features", options=options, shards=shards,
        dataset_format="numpy", workers=args.threads,
    )  # fmt: skip
    convert_pretrain(conversion)
    return folder / "features"
