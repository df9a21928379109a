"""Pretraining samples from raw text: ours against a plain Python generator in Google's manner (`google_pretrain`).

Both make the same passes over the same corpus with the same settings and write what they made with the same writer, in
a process each; ours may use further ones, up to its number of threads, and makes as many shards. Ours also keeps
checksums and reads everything back; the peer does not. Imports do not count. Instances are drawn at random, so they
cannot be equal: their number, their lengths, the random next sentences and the targets are compared. Peak memory of
ours is that of all its processes together.
"""

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

from benchmarks import google_pretrain, sidebyside
from benchmarks.google_squad import GoogleTokenizer
from benchmarks.raw_data import OURS, race, serve_peer
from data_tools.convert import PretrainConversion, convert_pretrain
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.pretrain import PretrainOptions
from data_tools.features.units import PHRASE, UnitOptions
from data_tools.record_columns import RecordLayout
from data_tools.synthetic_squad import generate
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import write_json, write_text

PEER = "Google's manner in Python"
OPTIONS = PretrainOptions()
QUESTIONS, QUICK_QUESTIONS = 20000, 400  # of the generated dataset whose paragraphs are the documents
DATA_SEED = 1
LARGEST_DIFFERENCE = 0.02  # of the figures of both, besides what chance makes


def run_ours(setup: dict[str, Any]) -> None:
    """Worker: `data_tools.convert`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # using all its cores is part of the product
    output, threads = Path(setup["folder"], setup["format"]), setup["threads"]

    def once() -> dict:
        conversion = PretrainConversion(
            (setup["data_file"],), setup["vocab_file"], output, dataset_format=setup["format"], overwrite=True,
            options=OPTIONS, units=UnitOptions({PHRASE: 1.0}), workers=threads, shards=threads,
        )  # fmt: skip
        with sidebyside.PeakMemory() as peak:
            features = convert_pretrain(conversion)["counts"]["features"]
        return {"instances": features, "peak_memory_mib": peak.mib}

    once()
    _save_figures(setup["folder"], OURS, load_features(output))
    sidebyside.serve({}, once)


def run_peer(setup: dict[str, Any]) -> None:
    """Worker: everything in Python lists, then the writer of the format."""
    layout = RecordLayout("pretrain", OPTIONS.max_seq_length, OPTIONS.masking.max_predictions_per_seq)

    def convert() -> FeatureSet:
        tokenizer = GoogleTokenizer(setup["vocab_file"], lower_case=True)
        instances = google_pretrain.create_instances([setup["data_file"]], tokenizer, OPTIONS, whole_words=True)
        return google_pretrain.convert(instances, tokenizer, OPTIONS)

    _save_figures(setup["folder"], PEER, convert())
    serve_peer(setup, layout, convert, "instances")


def _save_figures(folder: str, name: str, features: FeatureSet) -> None:
    """What was made, in figures that `compare_figures` compares."""
    targets = features.tokens["mlm_label"] >= 0
    figures = {
        "instances": len(features), "mean_length": float(features.lengths.mean()),
        "targets_per_token": float(targets.mean()),
        "random_next": float(features.scalars["next_sentence_label"].mean()),
    }  # fmt: skip
    write_json(Path(folder, f"{name}.json"), figures)


def compare_figures(folder: str) -> dict[str, Any]:
    """The figures of both; a `UserError` when they are not the same work."""
    ours, theirs = (json.loads(Path(folder, f"{name}.json").read_text()) for name in (OURS, PEER))
    allowed = LARGEST_DIFFERENCE + 2 / math.sqrt(ours["instances"])
    for name, value in ours.items():
        if abs(value - theirs[name]) > allowed * theirs[name]:
            raise UserError(f"{name}: {OURS} made {value:.4g}, {PEER} {theirs[name]:.4g} of the same text")
    return {"figures": {OURS: ours, PEER: theirs}}


def data_file(args: argparse.Namespace, folder: Path) -> Path:
    """The file given, or the paragraphs of a generated dataset as documents, a sentence a line."""
    if args.data_file:
        return args.data_file
    articles, _ = generate(DATA_SEED, QUICK_QUESTIONS if args.quick else QUESTIONS, 1)
    paragraphs = [paragraph["context"] for article in articles["data"] for paragraph in article["paragraphs"]]
    write_text(folder / "corpus.txt", "\n\n".join(paragraph.replace(". ", ".\n") for paragraph in paragraphs) + "\n")
    return folder / "corpus.txt"


def complete(summary: dict[str, Any], folder: str) -> None:
    """The work is the passes over the corpus, the same for both; ours says how many instances they are."""
    summary |= compare_figures(folder)
    sidebyside.add_rates(summary, {"instances": summary["figures"][OURS]["instances"]})


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    texts = __doc__, "a corpus, one sentence a line; a generated one"
    race("benchmarks.pretrain_data", argv, texts, {OURS: run_ours, PEER: run_peer}, data_file, complete)


if __name__ == "__main__":
    run_main(main)
