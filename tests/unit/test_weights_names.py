"""Name tables: every family covers every canonical name, both ways; spellings of older writers."""

import subprocess
import sys

import pytest

from models.common.encoder_config import EncoderConfig
from models.common.weights.names import (
    CANONICAL,
    CANONICAL_SHAPES,
    HUGGING_FACE_BERT,
    HUGGING_FACE_NEZHA,
    MODELZOO_BERT,
    OPTIONAL_GROUPS,
    TAGGER,
    canonical_shapes,
    groups_in,
)

TABLES = {"canonical": CANONICAL, "hf": HUGGING_FACE_BERT, "nezha": HUGGING_FACE_NEZHA, "zoo": MODELZOO_BERT}
# What a family has no name for: Hugging Face no such heads, and NEZHA no positions but relative ones.
LACKING = {
    "canonical": (),
    "hf": ("heads.crf", "heads.lstm", "heads.tagger", "encoder.layers.{i}.attention.relative"),
    "nezha": (
        "heads.crf",
        "heads.lstm",
        "heads.tagger",
        "encoder.layers.{i}.attention.relative",
        "embeddings.position",
    ),
    "zoo": ("heads.tagger",),
}


@pytest.mark.parametrize("family", TABLES)
def test_tables_are_invertible_and_whole(family):
    table = TABLES[family]
    named = {canonical for canonical, _ in table.rows}
    lacking = {name for name in CANONICAL_SHAPES if name.startswith(LACKING[family])}
    assert named == set(CANONICAL_SHAPES) - lacking
    assert len({other for _, other in table.rows}) == len(table.rows)
    tagging = {canonical for canonical, _ in table.for_head(TAGGER).rows}
    if family != "canonical":
        assert "heads.tagger.bias" in tagging and "heads.classifier.bias" not in tagging
    kind = "sinusoidal" if family == "nezha" else "none"
    config = EncoderConfig(num_hidden_layers=12, relative_kind=kind)
    for name in canonical_shapes(config, ("pooler", "heads.mlm", "heads.nsp")):
        assert table.to_canonical(table.from_canonical(name)) == name


def test_layer_slot():
    assert MODELZOO_BERT.from_canonical("encoder.layers.11.feed_forward.up.bias") == (
        "bert.bert.bert_encoder.layers.11.intermediate.bias"
    )
    for wrong in ("bert.encoder.layer.01.output.dense.bias", "bert.encoder.layer.x.output.dense.bias",
                  "bert.encoder.layer.{i}.output.dense.bias", "bert.encoder.layer..output.dense.bias",
                  "bert.encoder.layer.1.output.dense.bias.2"):  # fmt: skip
        assert HUGGING_FACE_BERT.to_canonical(wrong) is None


@pytest.mark.parametrize(
    ("table", "spelling", "canonical"),
    [
        ("hf", "embeddings.word_embeddings.weight", "embeddings.word.weight"),
        ("hf", "encoder.layer.3.attention.output.LayerNorm.gamma", "encoder.layers.3.attention.norm.weight"),
        ("hf", "bert.embeddings.LayerNorm.beta", "embeddings.norm.bias"),
        ("hf", "cls.predictions.transform.LayerNorm.gamma", "heads.mlm.norm.weight"),
        ("zoo", "bert.bert_embedding_lookup.embedding_table", "embeddings.word.weight"),
        ("zoo", "bert_encoder.layers.0.output.layernorm.beta", "encoder.layers.0.feed_forward.norm.bias"),
        ("zoo", "bert.bert.bert_embedding_postprocessor.embedding_table", "embeddings.token_type.weight"),
        ("zoo", "bert.bert.bert_embedding_postprocessor.full_position_embeddings", "embeddings.position.weight"),
    ],
)
def test_older_spellings(table, spelling, canonical):
    assert TABLES[table].to_canonical(spelling) == canonical


@pytest.mark.parametrize("name", ["qa_outputs.gamma", "bert.bert.pooler.dense.weight", "dense.weight", ""])
def test_no_wide_guesses(name):
    assert HUGGING_FACE_BERT.to_canonical(name) is None


def test_groups_and_shapes():
    config = EncoderConfig(vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                           intermediate_size=6, max_position_embeddings=5, type_vocab_size=3)  # fmt: skip
    shapes = canonical_shapes(config, ["heads.span"])
    assert len(shapes) == 5 + 2 * 16 + 2
    assert shapes["embeddings.token_type.weight"] == (3, 8)
    assert shapes["encoder.layers.1.feed_forward.up.weight"] == (6, 8)
    assert shapes["encoder.layers.1.feed_forward.down.weight"] == (8, 6)
    assert shapes["heads.span.weight"] == (2, 8)
    assert groups_in(["heads.nsp.bias", "pooler.weight", "embeddings.word.weight"]) == ["pooler", "heads.nsp"]


def test_positions_of_nezha():
    fixed, learned = (
        canonical_shapes(EncoderConfig(vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                       max_relative_position=16, relative_kind=kind))
        for kind in ("sinusoidal", "learned")
    )  # fmt: skip
    assert len(fixed) == 4 + 2 * 16 and "embeddings.position.weight" not in learned
    assert learned["encoder.layers.1.attention.relative.weight"] == (33, 4)
    assert len(learned) == len(fixed) + 2


def test_sizes_of_heads_with_classes():
    config = EncoderConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    shapes = canonical_shapes(config, OPTIONAL_GROUPS, labels=5)
    assert shapes["heads.classifier.weight"] == shapes["heads.tagger.weight"] == (5, 8)
    assert shapes["heads.crf.transitions"] == (5, 5) and shapes["heads.crf.end"] == (5,)
    assert shapes["heads.lstm.backward.weight_input"] == (16, 8)
    assert shapes["heads.lstm.backward.weight_hidden"] == (16, 4)


def test_no_framework_is_imported():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['mindspore'] = None\n"
        "import models.common.weights.loading, models.bert.migrate"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
