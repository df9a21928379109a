"""Heads with classes: Hugging Face's and the old ModelZoo's, their labels, and NEZHA's names."""

import itertools
import json
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import logsumexp
from transformers import BertForSequenceClassification, BertForTokenClassification

from models.common.errors import UserError
from models.common.weights.canonical import save_canonical
from models.common.weights.reading import read_checkpoint
from tests.parity.test_migrate import transformers_model
from tests.parity.test_migrate_zoo import ZOO_ENCODER, ZOO_SIZES
from tests.weights_data import TINY, assert_same, load_any, random_tensors, run

TAGS = 4


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification])
def test_labels_go_with_the_head(tmp_path, kind):
    names = {0: "故事", 1: "sport", 2: "B-x"}
    transformers_model(kind, id2label=names).save_pretrained(tmp_path / "theirs")
    for source, target, pair in (
        ("theirs", "a", ("hf", "canonical")),
        ("a", "b", ("canonical", "mindspore")),
        ("b", "back", ("mindspore", "hf")),
    ):
        run(tmp_path / source, tmp_path / target, *pair)
        assert read_checkpoint(tmp_path / target).labels == tuple(names.values())
    again = kind.from_pretrained(tmp_path / "back")
    assert again.config.id2label == names
    assert_same(load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors"))


def test_the_last_layer_of_a_file_without_signs_goes_where_it_is_told(tmp_path):
    model = transformers_model(BertForTokenClassification, num_labels=3)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    pooler = {
        "bert.pooler.dense.weight": np.ones((24, 24), np.float32),
        "bert.pooler.dense.bias": np.ones(24, np.float32),
    }
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text(json.dumps(TINY.to_dict()))
    save_file(tensors | pooler, tmp_path / "old/model.safetensors")
    assert "heads.classifier.bias" in read_checkpoint(tmp_path / "old").tensors  # a pooler: what transformers would say
    assert "heads.tagger.bias" in read_checkpoint(tmp_path / "old", head="tagger").tensors
    save_file(tensors, tmp_path / "old/model.safetensors")
    assert "heads.tagger.bias" in read_checkpoint(tmp_path / "old").tensors


def test_hugging_face_has_no_place_for_a_crf(tmp_path):
    save_canonical(tmp_path / "a", TINY, random_tensors(groups=("heads.tagger", "heads.crf")))
    with pytest.raises(UserError, match=r"hf weights have no place for heads\.crf\.transitions"):
        run(tmp_path / "a", tmp_path / "b", "canonical", "hf")


@pytest.mark.parametrize("groups", [("pooler", "heads.classifier"), ("heads.tagger", "heads.crf", "heads.lstm")])
@pytest.mark.parametrize("other", ["mindspore", "mindspore-zoo"])
def test_heads_round_trip_bit_for_bit(tmp_path, other, groups):
    tensors = random_tensors(groups=groups, labels=TAGS)
    save_canonical(tmp_path / "a", TINY, tensors, labels=["O", "B-x", "I-x", "B-y"])
    run(tmp_path / "a", tmp_path / "b", "canonical", other)
    head = groups[1 if "pooler" in groups else 0].removeprefix("heads.")
    run(tmp_path / "b", tmp_path / "c", other, "canonical", "--head", head)
    assert_same(load_any(tmp_path / "c")[1], tensors)
    assert read_checkpoint(tmp_path / "c").labels == ("O", "B-x", "I-x", "B-y")


def zoo_tagger(path, with_crf: bool, with_lstm: bool = False) -> dict[str, np.ndarray]:
    """A ModelZoo checkpoint written by MindSpore; returns its tensors."""
    generator = np.random.default_rng(5)
    outputs = TAGS + 2 * with_crf
    shapes = {name: [ZOO_SIZES[size] for size in shape] for name, (_, shape) in ZOO_ENCODER.items()}
    shapes |= {"bert.dense_1.weight": [outputs, 768], "bert.dense_1.bias": [outputs]}
    if with_crf:
        shapes["loss.transitions"] = [outputs, outputs]
    if with_lstm:
        cell = ms.nn.LSTM(768, 384, batch_first=True, bidirectional=True)  # its own names, behind the attribute's
        shapes |= {f"bert.lstm.{parameter.name}": list(parameter.shape) for parameter in cell.get_parameters()}
    values = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if with_crf:
        values["loss.transitions"][TAGS, :] = values["loss.transitions"][:, TAGS + 1] = -10000.0
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(value)} for name, value in values.items()], str(path))
    return values


def test_modelzoo_classifiers_and_taggers_are_told_apart_by_the_user(tmp_path):
    values = zoo_tagger(tmp_path / "ner.ckpt", with_crf=False)
    with pytest.raises(UserError, match="--head classifier or --head tagger"):
        run(tmp_path / "ner.ckpt", tmp_path / "a", "mindspore-zoo", "canonical")
    for head in ("classifier", "tagger"):
        run(tmp_path / "ner.ckpt", tmp_path / head, "mindspore-zoo", "canonical", "--head", head)
        tensors = load_any(tmp_path / head)[1]
        np.testing.assert_array_equal(tensors[f"heads.{head}.weight"], values["bert.dense_1.weight"])


def test_the_modelzoos_crf_scores_every_path_as_before(tmp_path, capsys):
    """Brute force over all paths with the original's matrix, START and STOP included, against our three tensors."""
    values = zoo_tagger(tmp_path / "ner.ckpt", with_crf=True)
    run(tmp_path / "ner.ckpt", tmp_path / "a", "mindspore-zoo", "canonical")
    assert "emissions of START and STOP" in capsys.readouterr().out
    tensors = load_any(tmp_path / "a")[1]
    theirs = values["loss.transitions"].astype(np.float64)  # [to, from]
    ours = {name: tensors[f"heads.crf.{name}"].astype(np.float64) for name in ("transitions", "start", "end")}
    start, stop, length = TAGS, TAGS + 1, 3
    hidden = np.random.default_rng(6).standard_normal((length, 768))
    emissions = hidden @ values["bert.dense_1.weight"].T + values["bert.dense_1.bias"]  # [T, tags + 2]
    own = hidden @ tensors["heads.tagger.weight"].T + tensors["heads.tagger.bias"]

    def their_score(path):
        steps = zip((start, *path), path, strict=False)
        return (
            sum(theirs[to, origin] for origin, to in steps)
            + emissions[range(length), path].sum()
            + theirs[stop, path[-1]]
        )

    def our_score(path):
        steps = sum(ours["transitions"][pair] for pair in itertools.pairwise(path))
        return ours["start"][path[0]] + own[range(length), path].sum() + steps + ours["end"][path[-1]]

    paths = list(itertools.product(range(TAGS), repeat=length))
    np.testing.assert_allclose([our_score(path) for path in paths], [their_score(path) for path in paths], rtol=1e-12)
    every = itertools.product(range(TAGS + 2), repeat=length)  # through START and STOP too: they weigh nothing
    assert logsumexp([their_score(path) for path in every]) == pytest.approx(logsumexp([our_score(p) for p in paths]))


def test_the_two_biases_of_the_modelzoos_lstm_are_added(tmp_path):
    values = zoo_tagger(tmp_path / "ner.ckpt", with_crf=True, with_lstm=True)
    run(tmp_path / "ner.ckpt", tmp_path / "a", "mindspore-zoo", "canonical")
    tensors = load_any(tmp_path / "a")[1]
    for ours, theirs in (("forward", ""), ("backward", "_reverse")):
        np.testing.assert_array_equal(
            tensors[f"heads.lstm.{ours}.weight_input"], values[f"bert.lstm.weight_ih_l0{theirs}"]
        )
        np.testing.assert_array_equal(
            tensors[f"heads.lstm.{ours}.weight_hidden"], values[f"bert.lstm.weight_hh_l0{theirs}"]
        )
        both = values[f"bert.lstm.bias_ih_l0{theirs}"] + values[f"bert.lstm.bias_hh_l0{theirs}"]
        np.testing.assert_array_equal(tensors[f"heads.lstm.{ours}.bias"], both)


# transformers 4.x modeling_nezha.py (NezhaModel) and Huawei's PyTorch release, which keeps BERT's names.
@pytest.mark.parametrize("prefix", ["nezha.", "bert.", ""])
def test_nezha_of_hugging_face(tmp_path, prefix):
    config = replace(TINY, relative_kind="sinusoidal", max_relative_position=64)
    tensors = random_tensors(config, groups=("pooler",))
    plain = random_tensors(TINY, groups=("pooler",))
    save_canonical(tmp_path / "bert", TINY, plain)
    run(tmp_path / "bert", tmp_path / "hf", "canonical", "hf")
    names = {name for name in load_file(tmp_path / "hf/model.safetensors") if "position_embeddings" not in name}
    save_canonical(tmp_path / "a", config, tensors)
    run(tmp_path / "a", tmp_path / "b", "canonical", "hf")
    written = load_file(tmp_path / "b/model.safetensors")
    assert set(written) == names  # a bare model has no prefix
    settings = json.loads((tmp_path / "b/config.json").read_text())
    assert settings["model_type"] == "nezha" and settings["max_relative_position"] == 64
    assert settings["use_relative_position"] is True and settings["architectures"] == ["NezhaModel"]
    save_file({prefix + name: tensor for name, tensor in written.items()}, tmp_path / "b/model.safetensors")
    run(tmp_path / "b", tmp_path / "c", "hf", "canonical")
    again, found = load_any(tmp_path / "c")
    assert again == config
    assert_same(found, tensors)


def test_nezha_of_the_modelzoo(tmp_path):
    config = replace(TINY, relative_kind="learned", max_relative_position=16)
    tensors = random_tensors(config, groups=("pooler", "embeddings.position"))
    save_canonical(tmp_path / "a", config, tensors)
    run(tmp_path / "a", tmp_path / "b", "canonical", "mindspore-zoo")
    names = set(ms.load_checkpoint(str(tmp_path / "b/model.ckpt")))
    table = "attention.attention._generate_relative_positions_embeddings.embeddings_table"
    assert f"bert.bert.bert_encoder.layers.2.{table}" in names
    run(tmp_path / "b", tmp_path / "c", "mindspore-zoo", "canonical")
    again, found = load_any(tmp_path / "c")
    assert again == config
    assert_same(found, tensors)


@pytest.mark.parametrize(
    ("kind", "distance", "other", "names"),
    [
        ("sinusoidal", 64, "hf", {"cls.predictions.transform.LayerNorm.bias", "cls.seq_relationship.weight"}),
        (
            "learned",
            16,
            "mindspore-zoo",
            {"bert.cls1.layernorm.beta", "bert.cls1.output_bias", "bert.cls2.dense.weight"},
        ),
    ],
)
def test_nezha_keeps_its_pretraining_heads(tmp_path, kind, distance, other, names):
    config = replace(TINY, relative_kind=kind, max_relative_position=distance)
    tensors = random_tensors(config, groups=("pooler", "heads.mlm", "heads.nsp"))
    save_canonical(tmp_path / "a", config, tensors)
    written = run(tmp_path / "a", tmp_path / "b", "canonical", other)
    if other == "hf":
        assert json.loads((written / "config.json").read_text())["architectures"] == ["NezhaForPreTraining"]
        assert names <= set(load_file(written / "model.safetensors"))
    else:
        assert names <= set(ms.load_checkpoint(str(written / "model.ckpt")))
    run(tmp_path / "b", tmp_path / "c", other, "canonical")
    again, found = load_any(tmp_path / "c")
    assert again == config
    assert_same(found, tensors)
