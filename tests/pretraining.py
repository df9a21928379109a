"""A small corpus of real sentences, its pretraining features, and the flags of a tiny network on them."""

import json
from collections.abc import Iterator
from pathlib import Path

from mindspore import Tensor
from mindspore.dataset import GeneratorDataset

from data_tools.convert import PretrainConversion, convert_pretrain
from data_tools.features.pretrain import PretrainOptions
from data_tools.synthetic_squad import generate
from tests.tiny import TINY


def write_corpus(path: Path, seed: int = 5) -> Path:
    """Paragraphs of the generated dataset as documents, a sentence a line."""
    documents = [
        paragraph["context"] for article in generate(seed, 120, 4)[0]["data"] for paragraph in article["paragraphs"]
    ]
    path.write_text("\n\n".join(document.replace(". ", ".\n") for document in documents) + "\n", encoding="utf-8")
    return path


def write_short_documents(path: Path) -> Path:
    """Of two sentences each, so that samples are short, and of many lengths."""
    sentences = [line for line in write_corpus(path).read_text(encoding="utf-8").splitlines() if line]
    cut = [" ".join(line.split()[: 3 + number % 9]) for number, line in enumerate(sentences)]
    path.write_text("\n\n".join(map("\n".join, zip(cut[::2], cut[1::2], strict=False))), encoding="utf-8")
    return path


def write_features(folder: Path, corpus: Path, vocab: Path, row_length: int = 64, shards: int = 4) -> Path:
    """Convert the corpus."""
    options = PretrainOptions(max_seq_length=row_length)
    convert_pretrain(
        PretrainConversion((corpus,), vocab, folder, options=options, shards=shards, dataset_format="numpy")
    )
    return folder


def write_network(path: Path, **changes: object) -> Path:
    """The config.json of a tiny network."""
    path.write_text(json.dumps({**TINY.to_dict(), **changes}))
    return path


def curve(run: Path) -> list[dict]:
    """What was logged of each step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["group"] == "train"]


def host_queue(dataset: GeneratorDataset) -> Iterator[list[Tensor]]:
    """In place of a device's queue: the rows of a dataset, made in its thread, as MindSpore hands them to Python."""
    yield from dataset.create_tuple_iterator(num_epochs=1)
