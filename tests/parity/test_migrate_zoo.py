"""ModelZoo checkpoints, written by MindSpore itself with names copied by hand from the spec."""

import json

import mindspore as ms
import numpy as np
import pytest
from transformers import BertForQuestionAnswering

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.weights.canonical import save_canonical
from models.common.weights.writing import write_checkpoint
from tests.weights_data import TINY, assert_same, load_any, random_tensors, run

# Sizes of the ModelZoo's base network but for the vocabulary, the feed-forward width, the positions and the layers.

ZOO_SIZES = {"V": 31, "H": 768, "P": 7, "S": 2, "F": 10}
ZOO_LAYER = {
    "attention.attention.query_layer.weight": ("attention.query.weight", "HH"),
    "attention.attention.query_layer.bias": ("attention.query.bias", "H"),
    "attention.attention.key_layer.weight": ("attention.key.weight", "HH"),
    "attention.attention.key_layer.bias": ("attention.key.bias", "H"),
    "attention.attention.value_layer.weight": ("attention.value.weight", "HH"),
    "attention.attention.value_layer.bias": ("attention.value.bias", "H"),
    "attention.output.dense.weight": ("attention.output.weight", "HH"),
    "attention.output.dense.bias": ("attention.output.bias", "H"),
    "attention.output.layernorm.gamma": ("attention.norm.weight", "H"),
    "attention.output.layernorm.beta": ("attention.norm.bias", "H"),
    "intermediate.weight": ("feed_forward.up.weight", "FH"),
    "intermediate.bias": ("feed_forward.up.bias", "F"),
    "output.dense.weight": ("feed_forward.down.weight", "HF"),
    "output.dense.bias": ("feed_forward.down.bias", "H"),
    "output.layernorm.gamma": ("feed_forward.norm.weight", "H"),
    "output.layernorm.beta": ("feed_forward.norm.bias", "H"),
}
ZOO_ENCODER = {
    "bert.bert.bert_embedding_lookup.embedding_table": ("embeddings.word.weight", "VH"),
    "bert.bert.bert_embedding_postprocessor.token_type_embedding.embedding_table": (
        "embeddings.token_type.weight", "SH"),
    "bert.bert.bert_embedding_postprocessor.full_position_embedding.embedding_table": (
        "embeddings.position.weight", "PH"),
    "bert.bert.bert_embedding_postprocessor.layernorm.gamma": ("embeddings.norm.weight", "H"),
    "bert.bert.bert_embedding_postprocessor.layernorm.beta": ("embeddings.norm.bias", "H"),
    **{f"bert.bert.bert_encoder.layers.{i}.{name}": (f"encoder.layers.{i}.{ours}", shape)
       for i in range(2) for name, (ours, shape) in ZOO_LAYER.items()},
    "bert.bert.dense.weight": ("pooler.weight", "HH"),
    "bert.bert.dense.bias": ("pooler.bias", "H"),
}  # fmt: skip
ZOO_HEADS = {
    "pretraining": {
        "bert.cls1.dense.weight": ("heads.mlm.transform.weight", "HH"),
        "bert.cls1.dense.bias": ("heads.mlm.transform.bias", "H"),
        "bert.cls1.layernorm.gamma": ("heads.mlm.norm.weight", "H"),
        "bert.cls1.layernorm.beta": ("heads.mlm.norm.bias", "H"),
        "bert.cls1.output_bias": ("heads.mlm.bias", "V"),
        "bert.cls2.dense.weight": ("heads.nsp.weight", "SH"),
        "bert.cls2.dense.bias": ("heads.nsp.bias", "S"),
    },
    "squad": {"bert.dense1.weight": ("heads.span.weight", "SH"), "bert.dense1.bias": ("heads.span.bias", "S")},
}
ZOO_TRAINING = ["adam_m.bert.bert.dense.bias", "adam_v.bert.bert.dense.bias", "lamb_m.bert.cls1.dense.weight",
                "lamb_v.bert.bert.bert_embedding_lookup.embedding_table", "moments.bert.cls2.dense.bias", "global_step",
                "learning_rate", "loss_scale", "current_iterator_step", "last_overflow_iterator_step", "epoch_num",
                "step_num", "accu_grads.bert.bert.dense.bias"]  # fmt: skip


def zoo_checkpoint(path, head, extra=()):
    """Write a .ckpt with MindSpore itself; returns name -> values."""
    generator = np.random.default_rng(11)
    names = ZOO_ENCODER | ZOO_HEADS[head]
    values = {
        name: generator.standard_normal([ZOO_SIZES[size] for size in shape]).astype(np.float32)
        for name, (_, shape) in names.items()
    }
    more = {name: np.ones(3, np.float32) for name in extra}
    listed = [{"name": name, "data": ms.Tensor(value)} for name, value in {**more, **values}.items()]
    ms.save_checkpoint(listed, str(path))
    return values


@pytest.mark.parametrize("head", ZOO_HEADS)
def test_modelzoo_values_land_where_they_belong(tmp_path, head, capsys):
    values = zoo_checkpoint(tmp_path / "checkpoint_bert-3_500.ckpt", head, ZOO_TRAINING)
    run(tmp_path, tmp_path / "canonical", "mindspore-zoo", "canonical")
    config, tensors = load_any(tmp_path / "canonical")
    names = ZOO_ENCODER | ZOO_HEADS[head]
    assert_same(tensors, {ours: values[name] for name, (ours, _) in names.items()})
    wanted = EncoderConfig(
        vocab_size=31, hidden_size=768, num_hidden_layers=2, num_attention_heads=12, intermediate_size=10,
        max_position_embeddings=7, hidden_act="gelu_new", layer_norm_eps=1e-7,
    )  # fmt: skip
    assert config == wanted
    report = capsys.readouterr().out
    assert f"used: {len(names)} tensors" in report and f"unused: {len(ZOO_TRAINING)}" in report
    assert "12 heads, the tanh gelu and epsilon 1e-7" in report
    assert "activation gelu_new, layer norm epsilon 1e-07" in report
    assert "global_step (counter)" in report and "adam_m.bert.bert.dense.bias (optimizer state)" in report
    written = run(tmp_path / "canonical", tmp_path / "zoo", "canonical", "mindspore-zoo") / "model.ckpt"
    theirs = ms.load_checkpoint(str(written))
    assert_same({name: parameter.asnumpy() for name, parameter in theirs.items()}, values)


def test_modelzoo_sizes_that_tell_no_heads_need_a_config(tmp_path):
    source = tmp_path / "source"
    start = write_checkpoint("mindspore-zoo", source, TINY, random_tensors())
    (source / "config.json").unlink()
    with pytest.raises(UserError, match=r"hidden size 24 .*--config"):
        run(start, tmp_path / "x", "mindspore-zoo", "canonical")
    settings = {name: value for name, value in TINY.to_dict().items() if name not in ("hidden_act", "layer_norm_eps")}
    (tmp_path / "given.json").write_text(json.dumps(settings))
    run(start, tmp_path / "y", "mindspore-zoo", "canonical", "--config", tmp_path / "given.json")
    config, _ = load_any(tmp_path / "y")
    assert (config.num_attention_heads, config.hidden_act, config.layer_norm_eps) == (4, "gelu_new", 1e-7)
    (tmp_path / "given.json").write_text(json.dumps(TINY.to_dict()))
    run(start, tmp_path / "z", "mindspore-zoo", "canonical", "--config", tmp_path / "given.json")
    assert load_any(tmp_path / "z")[0] == TINY


def test_modelzoo_heads_without_a_place_are_named(tmp_path, capsys):
    zoo_checkpoint(
        tmp_path / "classifier.ckpt", "squad", ["bert.dense_9.weight", "bert.dense_9.bias", "loss.unheard_of"]
    )
    with pytest.raises(UserError, match=r"3 not known:\n(.*\n)*.*bert\.dense_9\.weight"):
        run(tmp_path / "classifier.ckpt", tmp_path / "x", "mindspore-zoo", "hf")
    run(
        tmp_path / "classifier.ckpt",
        tmp_path / "x",
        "mindspore-zoo",
        "hf",
        "--allow_unused",
        "bert.dense_9.*",
        "loss.*",
    )
    assert "loss.unheard_of (allowed)" in capsys.readouterr().out
    assert (
        BertForQuestionAnswering.from_pretrained(tmp_path / "x", output_loading_info=True)[1]["missing_keys"] == set()
    )


def test_several_weights_in_a_folder_must_be_named(tmp_path):
    zoo_checkpoint(tmp_path / "squad-1_10.ckpt", "squad")
    zoo_checkpoint(tmp_path / "squad-2_10.ckpt", "squad")
    with pytest.raises(UserError, match=r"several weights: squad-1_10\.ckpt, squad-2_10\.ckpt; name the file"):
        load_any(tmp_path)
    assert load_any(tmp_path / "squad-2_10.ckpt")[0].hidden_size == 768


def test_going_to_the_modelzoo_warns_of_its_own_arithmetic(tmp_path, capsys):
    save_canonical(tmp_path / "a", TINY, random_tensors())
    run(tmp_path / "a", tmp_path / "b", "canonical", "mindspore-zoo")
    assert "tanh gelu and epsilon 1e-7, whatever config.json says" in capsys.readouterr().out
