"""ERNIE's commands: the flags of the original README, and one way through all of them, from pretraining to 8 bits."""

import json
import re

import numpy as np
import pytest

from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.feature_store import load_features
from models.common.encoder_config import EncoderConfig
from models.common.export.manifest import read_manifest
from models.common.weights.paddle_tensors import write_variables
from models.common.weights.reading import read_checkpoint
from models.ernie import (
    evaluate,
    export,
    predict,
    pretrain_eval,
    quantize,
    run_classifier,
    run_mrc,
    run_ner,
    run_pretrain,
)
from models.ernie.config import NETWORKS
from tests.commands import flags
from tests.pretraining import write_corpus, write_features, write_network
from tests.recipes.test_run_classifier import LAYOUT, SENTENCES, write_texts
from tests.tiny import TINY
from tests.weights_data import run_ernie

# The README's name of a command -> what it is here. `run_squad` is what it calls reading comprehension.
COMMANDS = {"run_ner": run_ner, "run_squad": run_mrc, "run_classifier": run_classifier}
VALUES = {
    "device_target": ("Ascend", "CPU"), "do_train": ("true", "false"), "do_eval": ("true",),
    "use_crf": ("true", "false"), "device_id": ("3",), "epoch_num": ("3",), "num_class": ("2",),
    "train_data_shuffle": ("true",), "eval_data_shuffle": ("false",), "dataset_format": ("tfrecord", "mindrecord"),
}  # fmt: skip
METHODS = {"run_ner": ("f1", "clue_benchmark"), "run_classifier": ("accuracy", "f1", "mcc", "spearman_correlation")}
LENGTH = 32


def test_every_flag_of_the_original_readme_is_taken(shared_data):
    text = (shared_data.parent / "originals/ernie_mindspore_README_CN.md").read_text(encoding="utf-8")
    usages = re.findall(r"^(?:用法|usage)\W+(run_\w+)\.py(.*?)(?=^用法|^usage|^```)", text, re.M | re.S)
    assert {name for name, _ in usages} == COMMANDS.keys()
    for name, usage in usages:
        # Of each flag its line in the list; the README names some in one of the two places only.
        documented = set(re.findall(r"--(\w+)", usage))
        assert len(documented) > 12
        for flag in documented:
            values = METHODS[name] if flag == "assessment_method" else VALUES.get(flag, ("some/path",))
            for value in values:
                COMMANDS[name].parse([f"--{flag}", value])


def test_the_networks_are_baidus(shared_data):
    published = json.loads((shared_data / "vocab/ernie1.0_config.json").read_text())
    base = NETWORKS.named("base")
    assert {name: getattr(base, name) for name in published} == published
    assert base.layer_norm_eps == 1e-5 and base.intermediate_size == 4 * base.hidden_size
    small = NETWORKS.named("small")
    assert (small.vocab_size, small.max_position_embeddings, small.hidden_act) == (18000, 513, "relu")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, minilm_dir):
    """A few steps of pretraining with the settings of the recipe."""
    folder, vocab = tmp_path_factory.mktemp("ernie"), minilm_dir / "vocab.txt"
    data = write_features(folder / "corpus", write_corpus(folder / "corpus.txt"), vocab, shards=1)
    network = write_network(folder / "network.json", hidden_act="relu", layer_norm_eps=1e-5)
    run_pretrain.main(flags({
        "recipe": "pretrain_base", "network": network, "data_dir": data, "train_steps": 2, "vocab_file_path": vocab,
        "save_checkpoint_path": folder / "run",
    }))  # fmt: skip
    return folder


def test_pretraining_is_scored_and_its_weights_are_ernies(pretrained, capsys):
    weights = pretrained / "run/checkpoint_ernie.ckpt"
    pretrain_eval.main(flags({"load_checkpoint_path": weights, "eval_data_dir": pretrained / "corpus"}))
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["mlm_accuracy"] < 0.5
    config = read_checkpoint(weights).config
    assert (config.hidden_act, config.layer_norm_eps) == ("relu", 1e-5)


def test_what_baidus_head_calls_the_next_sentence_is_scored_as_that(pretrained, tmp_path, capsys):
    """Class 1 of Baidu's is the true next, of which our features say 0: a head that always says 1 is right there."""
    run_ernie(pretrained / "run/checkpoint_ernie.ckpt", tmp_path / "baidu", "mindspore", "fluid")
    says_one = {"next_sent_fc.w_0": np.zeros((TINY.hidden_size, 2)), "next_sent_fc.b_0": np.array([-4.0, 4.0])}
    write_variables(tmp_path / "head", {name: one.astype(np.float32) for name, one in says_one.items()})
    for name in says_one:
        (tmp_path / "head" / name).replace(tmp_path / "baidu/params" / name)
    pretrain_eval.main(flags({"load_checkpoint_path": tmp_path / "baidu", "eval_data_dir": pretrained / "corpus"}))
    follows = load_features(pretrained / "corpus").scalars["next_sentence_label"] == 0
    assert 0.2 < follows.mean() < 0.45 or 0.55 < follows.mean() < 0.8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["nsp_accuracy"] == pytest.approx(follows.mean())


@pytest.fixture(scope="module")
def classifier(pretrained, minilm_dir):
    """A run from these weights."""
    raw = write_texts(pretrained / "texts.tsv")
    convert_classification(ClassificationConversion(
        raw, minilm_dir / "vocab.txt", pretrained / "features", layout=LAYOUT, max_seq_length=LENGTH,
        dataset_format="numpy",
    ))  # fmt: skip
    run_classifier.main(flags({
        "recipe": "chnsenticorp_small", "do_train": "true", "do_eval": "true", "epoch_num": 25, "eval_steps": 100,
        "max_seq_length": LENGTH, "train_data_file_path": pretrained / "features",
        "eval_data_file_path": pretrained / "features", "load_pretrain_checkpoint_path": pretrained / "run",
        "save_finetune_checkpoint_path": pretrained / "classifier", "optimizer.learning_rate": "1e-2",
        "train_batch_size": 9, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0,
    }))  # fmt: skip
    return pretrained / "classifier"


def test_from_weights_to_eight_bits(classifier, pretrained, tmp_path, capsys):
    texts = [text for group in SENTENCES.values() for text in group]
    capsys.readouterr()
    predict.main(["--model", str(classifier), *texts])
    wanted = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert set(wanted) <= set(SENTENCES) and len(set(wanted)) > 1
    export.main(flags({
        "export_ckpt_file": classifier, "export_file_name": tmp_path / "onnx/m", "file_format": "ONNX",
        "packed": "false", "onnx_target": "onnxruntime",
    }))  # fmt: skip
    manifest = read_manifest(tmp_path / "onnx")
    assert manifest.model.name == "ernie"
    assert EncoderConfig.from_dict(manifest.model.config) == read_checkpoint(classifier / "best").config
    data = flags({"eval_data_file_path": pretrained / "features"})
    quantize.main(["--model", str(tmp_path / "onnx"), "--output_dir", str(tmp_path / "int8"), "--max_drop", "3", *data])
    assert read_manifest(tmp_path / "int8").precision == "int8"
    capsys.readouterr()
    predict.main(["--model", str(tmp_path / "onnx"), *texts])
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == wanted


def test_one_table_of_runtimes(classifier, pretrained, tmp_path):
    evaluate.main(flags({
        "model": classifier, "runtime": "mindspore,onnxruntime", "precision": "fp32", "output_dir": tmp_path,
        "eval_data_file_path": pretrained / "features",
    }))  # fmt: skip
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["runtime"] for row in rows] == ["mindspore", "onnxruntime"]
    assert all(row["agreement"] == 1.0 and row["score"] > 50 for row in rows)
