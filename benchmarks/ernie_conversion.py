"""Conversion of ERNIE's six tasks to features: ours against the original's way in plain Python, a task and format each.

Both read the same file, as Baidu lays it out, in a process each. MindRecord the peer (`ernie_peer`) writes as the
original does; numpy and TFRecord, which that does not know, with our writers. Ours also streams, keeps checksums and
reads everything back; the peer does not. Imports do not count. What both made is compared sample by sample: nearly all
must be equal (ours cuts long sentences of msra_ner and keeps both parts; the original tokenizes an answer apart from
the word it lies in). Ours tokenizes with all threads; the peer knows only one. `--repeat` gives a small file the size
at which reading the vocabulary and opening files no longer count.
"""

import argparse
import hashlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import ernie_peer, sidebyside
from benchmarks.ernie_data import write_data
from benchmarks.raw_data import OURS, race
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
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, read_text, write_json, write_text

PEER = "the original's way in Python"
RECORDS, QUICK_RECORDS = 8000, 100  # of a generated file
EQUAL_SHARE = 0.98
COMPARED = ("input_ids", "token_type_ids", "tag_id", "label", "start_position", "end_position")


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
    """Worker: the original's way."""
    task = setup["task"]

    def made() -> list[ernie_peer.Sample]:
        tokenizer = ernie_peer.OriginalTokenizer(setup["vocab_file"], lower_case=True)
        return ernie_peer.CONVERTERS[task](setup["data_file"], tokenizer, task)

    def once() -> dict[str, Any]:
        samples = made()
        with tempfile.TemporaryDirectory(dir=setup["folder"]) as output:
            ernie_peer.write(samples, setup["format"], Path(output), task)
        return {"features": len(samples)}

    save_content(setup["folder"], PEER, ernie_peer.features_of(made()))
    sidebyside.serve({}, once)


def save_content(folder: str, name: str, features: FeatureSet) -> None:
    """A digest of each sample, for `compare_content`."""
    digests = []
    for at in range(len(features)):
        sample, digest = features.sample(at), hashlib.sha256()
        for column in COMPARED:
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
    """The file given, or a generated one; its records as often as --repeat says."""
    path = args.data_file or write_data(args.task, folder, QUICK_RECORDS if args.quick else RECORDS)
    return path if args.repeat == 1 else repeated(path, args.repeat, folder)


def repeated(path: Path, times: int, folder: Path) -> Path:
    """A TSV file with so many times the records, and what lies beside it."""
    if path.suffix != ".tsv":
        raise UserError(f"--repeat {times}: the questions of {path} have an id each; --repeat is for TSV files")
    header, records = path.read_text(encoding="utf-8").split("\n", 1)
    target = folder / f"{times}_times" / path.name
    write_text(target, f"{header}\n" + (records.removesuffix("\n") + "\n") * times)
    label_map = path.with_name(ernie_peer.LABEL_MAP)
    if label_map.is_file():
        write_text(target.with_name(label_map.name), read_text(label_map))
    return target


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    texts = __doc__, "Baidu's training file of the task (label_map.json beside it for msra_ner); a generated one"
    workers, tasks = {OURS: run_ours, PEER: run_peer}, tuple(ernie_peer.CONVERTERS)
    race("benchmarks.ernie_conversion", argv, texts, workers, data_file, complete, tasks)


if __name__ == "__main__":
    run_main(main)
