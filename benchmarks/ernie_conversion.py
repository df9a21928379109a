"""Conversion of ERNIE's six tasks to features: ours against the original's way in plain Python, a task and format each.

Both read the same file, as Baidu lays it out, and write with the same writer, in a process each. Ours also streams,
keeps checksums and reads everything back; the peer (`ernie_peer`) does not. Imports do not count. What both made is
compared sample by sample: nearly all must be equal (ours cuts long sentences of msra_ner and keeps both parts; the
original tokenizes an answer apart from the word it lies in). Ours tokenizes with all threads; the peer knows only one.
"""

import argparse
import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import ernie_peer, sidebyside
from benchmarks.ernie_data import write_data
from benchmarks.google_squad import GoogleTokenizer
from benchmarks.raw_data import OURS, race, serve_peer
from data_tools.convert import (
    ClassificationConversion,
    SquadConversion,
    TaggingConversion,
    convert_classification,
    convert_squad,
    convert_tagging,
)
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.span import SpanOptions
from data_tools.readers.classification import KNOWN_LAYOUTS
from data_tools.readers.tagging import TaggingLayout
from data_tools.record_columns import RecordLayout
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, write_json

PEER = "the original's way in Python"
RECORDS, QUICK_RECORDS = 8000, 100  # of a generated file
EQUAL_SHARE = 0.98
COMPARED = ("input_ids", "token_type_ids", "tag_id"), ("label", "qid", "start_position", "end_position")


def convert(setup: dict[str, Any], output: Path) -> dict[str, Any]:
    """`data_tools.convert` with the task's settings; returns the sidecar."""
    task, file, vocab = setup["task"], setup["data_file"], setup["vocab_file"]
    length, how = ernie_peer.LENGTHS[task], {"dataset_format": setup["format"], "overwrite": True}
    if task in KNOWN_LAYOUTS:
        return convert_classification(
            ClassificationConversion(file, vocab, output, KNOWN_LAYOUTS[task], max_seq_length=length, **how)
        )
    if task == "msra_ner":
        return convert_tagging(TaggingConversion(
            file, vocab, output, TaggingLayout("msra"), label_file_path=file.with_name(ernie_peer.LABEL_MAP),
            repair_tags=True, max_seq_length=length, **how,
        ))  # fmt: skip
    span = SpanOptions(length, ernie_peer.DOC_STRIDE, "step", ernie_peer.MAX_QUERY_LENGTH)
    return convert_squad(SquadConversion(file, vocab, output, True, span=span, skip=frozenset(["misaligned"]), **how))


def run_ours(setup: dict[str, Any]) -> None:
    """Worker: `data_tools.convert`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # using all its cores is part of the product
    output = Path(setup["folder"], setup["format"])

    def once() -> dict:
        return {"records": convert(setup, output)["counts"]["examples"]}

    once()
    save_content(setup["folder"], OURS, load_features(output))
    sidebyside.serve({}, once)


def run_peer(setup: dict[str, Any]) -> None:
    """Worker: everything in Python lists, then the writer of the format."""
    task = setup["task"]

    def made() -> FeatureSet:
        tokenizer = GoogleTokenizer(setup["vocab_file"], lower_case=True)
        return ernie_peer.CONVERTERS[task](setup["data_file"], tokenizer, task)

    save_content(setup["folder"], PEER, made())
    kind = "classification" if task in KNOWN_LAYOUTS else "tagging" if task == "msra_ner" else "span"
    serve_peer(setup, RecordLayout(kind, ernie_peer.LENGTHS[task]), made, "features")


def save_content(folder: str, name: str, features: FeatureSet) -> None:
    """A digest of each sample, for `compare_content`."""
    digests = []
    for at in range(len(features)):
        sample, digest = features.sample(at), hashlib.sha256()
        for column in (*COMPARED[0], *COMPARED[1]):
            if column in sample:
                digest.update(column.encode() + sample[column].tobytes())
        digests.append(digest.hexdigest())
    write_json(Path(folder, f"{name}.json"), digests)


def compare_content(folder: str) -> float:
    """The share of samples that both made; a `UserError` when they are not the same work."""
    ours, theirs = (Counter(read_json(Path(folder, f"{name}.json"))) for name in (OURS, PEER))
    share = (ours & theirs).total() / max(ours.total(), theirs.total())
    if share < EQUAL_SHARE:
        raise UserError(f"only {share:.4f} of the samples of {OURS} and {PEER} are equal")
    return share


def complete(summary: dict[str, Any], folder: str) -> None:
    """How many records there are is known only when they are made: the rates come afterwards."""
    summary["equal_samples"] = compare_content(folder)
    [records] = {run["records"] for run in summary["contenders"][OURS]["repetitions"]}
    sidebyside.add_rates(summary, {"records": records})


def data_file(args: argparse.Namespace, folder: Path) -> Path:
    """The file given, or a generated one."""
    return args.data_file or write_data(args.task, folder, QUICK_RECORDS if args.quick else RECORDS)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    texts = __doc__, "Baidu's training file of the task (label_map.json beside it for msra_ner); a generated one"
    workers, tasks = {OURS: run_ours, PEER: run_peer}, tuple(ernie_peer.CONVERTERS)
    race("benchmarks.ernie_conversion", argv, texts, workers, data_file, complete, tasks)


if __name__ == "__main__":
    run_main(main)
