"""The smallest real thing: a random one-layer BERT with a real vocabulary, and a SQuAD file of two paragraphs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.weights.canonical import save_canonical
from models.common.weights.names import canonical_shapes

TINY = EncoderConfig(
    vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=64,
)  # fmt: skip

PARAGRAPHS = {
    "The bridge over the Aln was drawn by Ida Holm in 1871, and rebuilt by her nephew Olaf Brandt in 1904 with stone "
    "from Lund. It carries two roads and a narrow railway, which was closed in 1962.": {
        "Who drew the bridge?": "Ida Holm",
        "When was it rebuilt?": "1904",
        "Where did the stone come from?": "Lund",
        "Who rebuilt the bridge?": "Olaf Brandt",
        "When was the railway closed?": "1962",
    },
    "Mara Quist opened her press in Tallinn with three printers. The first book, a grammar, sold eighty copies; the "
    "second, a book of maps, sold nine hundred and paid for a larger house in Riga.": {
        "Where did the press open?": "Tallinn",
        "How many copies did the grammar sell?": "eighty",
        "What was the second book?": "a book of maps",
        "Who opened the press?": "Mara Quist",
    },
}


def write_squad(path: Path) -> Path:
    """Write the two paragraphs as a SQuAD v1.1 file."""
    paragraphs, number = [], 0
    for context, questions in PARAGRAPHS.items():
        qas = []
        for question, answer in questions.items():
            answers = [{"text": answer, "answer_start": context.index(answer)}]
            qas.append({"id": f"q{number}", "question": question, "answers": answers})
            number += 1
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "tiny", "paragraphs": paragraphs}]}))
    return path


def write_weights(
    folder: Path,
    vocab: Path,
    config: EncoderConfig = TINY,
    groups: tuple[str, ...] = (),
    labels: Sequence[str] | None = None,
) -> Path:
    """Write random canonical weights of `config`, always the same; `labels`: names of the classes of its heads."""
    rng = np.random.default_rng(7)
    tensors = {
        name: rng.normal(0.0, 0.05, shape).astype(np.float32) + np.float32("norm.weight" in name)
        for name, shape in canonical_shapes(config, groups, len(labels or (0, 1))).items()
    }
    save_canonical(folder, config, tensors, vocab, labels=labels)
    return folder


def write_pretrained(folder: Path, vocab: Path) -> Path:
    """Write a random BertForPreTraining of transformers."""
    from transformers import BertConfig, BertForPreTraining

    BertForPreTraining(BertConfig(**TINY.to_dict())).save_pretrained(folder)
    shutil.copy(vocab, folder / "vocab.txt")
    return folder


def assert_heads_are_named(output: str) -> None:
    """A command that was given weights of pretraining said that it has no use for their heads."""
    for name in ("heads.mlm.bias", "heads.mlm.transform.weight", "heads.mlm.norm.weight", "heads.nsp.weight"):
        assert f"{name} (allowed)" in output
