"""Conversion of SQuAD to features: ours against Google's Python tokenizer and windows (`google_squad`), per format.

Both turn the same JSON file into windows of 384 tokens that start 128 apart and write them with the same writer, in a
process each. Ours also streams, keeps checksums and reads everything back; the peer does not. Imports do not count.
What both made is compared: every token must be equal, and nearly all labels (Google's are found by another rule).
Ours tokenizes with all threads; Google's code knows only one.
"""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import samples, sidebyside
from benchmarks.raw_data import OURS, race, serve_peer
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.span import SpanOptions
from data_tools.record_columns import RecordLayout
from models.common.cli import run_main
from models.common.errors import UserError

SPAN = SpanOptions(max_seq_length=384, doc_stride=128, stride_is="step", max_query_length=64)
PEER = "Google's Python tokenizer"
QUESTIONS, QUICK_QUESTIONS = 10000, 200  # of the generated dataset
LABELS_SHARE = 0.99  # Google moves the words around an answer towards it; an answer's pieces may occur twice in them


def run_ours(setup: dict[str, Any]) -> None:
    """Worker: `data_tools.convert`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # using all its cores is part of the product
    output = Path(setup["folder"], setup["format"])

    def once() -> dict:
        conversion = SquadConversion(
            setup["data_file"], setup["vocab_file"], output, True,
            span=SPAN, dataset_format=setup["format"], skip=frozenset(["misaligned"]), overwrite=True,
        )  # fmt: skip
        return {"features": convert_squad(conversion)["counts"]["features"]}

    once()
    _save_content(setup["folder"], OURS, load_features(output))
    sidebyside.serve({}, once)


def run_peer(setup: dict[str, Any]) -> None:
    """Worker: everything in Python lists, then the writer of the format."""
    from benchmarks import google_squad

    layout = RecordLayout("span", SPAN.max_seq_length)

    def convert() -> FeatureSet:
        tokenizer = google_squad.GoogleTokenizer(setup["vocab_file"], lower_case=True)
        examples = google_squad.read_examples(setup["data_file"])
        return google_squad.convert(examples, tokenizer, SPAN.max_seq_length, SPAN.doc_stride, SPAN.max_query_length)

    _save_content(setup["folder"], PEER, convert())
    serve_peer(setup, layout, convert, "features")


def _save_content(folder: str, name: str, features: FeatureSet) -> None:
    """What was made, for `compare_content`: the labels, and a digest of all tokens and their questions."""
    digest = hashlib.sha256()
    for array in (features.starts, features.tokens["input_ids"], features.tokens["token_type_ids"]):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join(features.qas_ids).encode())
    labels = np.stack([features.scalars["start_position"], features.scalars["end_position"]])
    np.savez(Path(folder, f"{name}.npz"), labels=labels, digest=digest.hexdigest())


def compare_content(folder: str) -> dict[str, Any]:
    """How equal the features of both are; a `UserError` when they are not the same work."""
    ours, theirs = (np.load(Path(folder, f"{name}.npz")) for name in (OURS, PEER))
    shapes = [made["labels"].shape[1] for made in (ours, theirs)]
    if shapes[0] != shapes[1] or str(ours["digest"]) != str(theirs["digest"]):
        raise UserError(f"{OURS} ({shapes[0]} windows) and {PEER} ({shapes[1]}) made other tokens of the same file")
    share = float((ours["labels"] == theirs["labels"]).all(axis=0).mean())
    if share < LABELS_SHARE:
        raise UserError(f"only {share:.4f} of the labels of {OURS} and {PEER} are equal")
    return {"tokens_sha256": str(ours["digest"]), "equal_labels": share}


def complete(summary: dict[str, Any], folder: str) -> None:
    """How many features there are is known only when they are made: the rates come afterwards."""
    summary |= compare_content(folder)
    [features] = {run["features"] for made in summary["contenders"].values() for run in made["repetitions"]}
    sidebyside.add_rates(summary, {"features": features})


def data_file(args: argparse.Namespace, folder: Path) -> Path:
    """The file given, or a generated one."""
    return samples.data_file(args.data_file, folder, QUICK_QUESTIONS if args.quick else QUESTIONS, training=True)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    texts = __doc__, "SQuAD v1.1 JSON; the generated dataset"
    race("benchmarks.conversion", argv, texts, {OURS: run_ours, PEER: run_peer}, data_file, complete)


if __name__ == "__main__":
    run_main(main)
