"""Weights from format to format: against transformers, MindSpore, and names copied from the ModelZoo's spec."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoConfig,
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from models.common.errors import UserError
from models.common.weights.arrays import same_bits
from models.common.weights.canonical import save_canonical
from models.common.weights.formats import BERT
from models.common.weights.reading import read_checkpoint
from models.common.weights.writing import write_checkpoint
from tests.weights_data import DTYPES, TINY, assert_same, load_any, random_tensors, run

CLASSES = [
    BertModel, BertForQuestionAnswering, BertForPreTraining, BertForMaskedLM, BertForNextSentencePrediction,
    BertForSequenceClassification, BertForTokenClassification,
]  # fmt: skip


def transformers_model(kind=BertForPreTraining, **settings):
    """A tiny model in which every parameter differs from every other, biases and norms too."""
    torch.manual_seed(0)
    config = BertConfig(**{**TINY.to_dict(), **settings})
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def forward(model):
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (2, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    types = (torch.arange(11) > 4).long().expand(2, -1)
    with torch.no_grad():
        return model(ids, attention_mask=mask, token_type_ids=types).to_tuple()


def by_attribute(model) -> dict[str, torch.Tensor]:
    """Canonical name -> tensor, through the model's Python attributes and so without any table of names."""
    bert = getattr(model, "bert", model)
    modules = {"embeddings.norm": bert.embeddings.LayerNorm}
    for i, layer in enumerate(bert.encoder.layer):
        own, out = layer.attention.self, layer.attention.output
        at, forward = f"encoder.layers.{i}.attention", f"encoder.layers.{i}.feed_forward"
        modules |= {f"{at}.query": own.query, f"{at}.key": own.key, f"{at}.value": own.value, f"{at}.output": out.dense}
        modules |= {f"{at}.norm": out.LayerNorm, f"{forward}.up": layer.intermediate.dense}
        modules |= {f"{forward}.down": layer.output.dense, f"{forward}.norm": layer.output.LayerNorm}
    if bert.pooler is not None:
        modules["pooler"] = bert.pooler.dense
    if hasattr(model, "qa_outputs"):
        modules["heads.span"] = model.qa_outputs
    predictions = getattr(getattr(model, "cls", None), "predictions", None)
    if predictions is not None:
        modules |= {
            "heads.mlm.transform": predictions.transform.dense,
            "heads.mlm.norm": predictions.transform.LayerNorm,
        }
    if hasattr(model, "classifier"):
        modules["heads.classifier" if isinstance(model, BertForSequenceClassification) else "heads.tagger"] = (
            model.classifier
        )
    if hasattr(getattr(model, "cls", None), "seq_relationship"):
        modules["heads.nsp"] = model.cls.seq_relationship
    tensors = {
        f"{name}.{part}": getattr(module, part) for name, module in modules.items() for part in ("weight", "bias")
    }
    tensors["embeddings.word.weight"] = bert.embeddings.word_embeddings.weight
    tensors["embeddings.position.weight"] = bert.embeddings.position_embeddings.weight
    tensors["embeddings.token_type.weight"] = bert.embeddings.token_type_embeddings.weight
    if predictions is not None:
        tensors["heads.mlm.bias"] = predictions.bias
    return {name: tensor.detach() for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", CLASSES)
def test_transformers_and_back(tmp_path, kind):
    model = transformers_model(kind)
    model.save_pretrained(tmp_path / "theirs")
    run(tmp_path / "theirs", tmp_path / "canonical", "hf", "canonical")
    config, tensors = load_any(tmp_path / "canonical")
    assert config == TINY
    assert_same(tensors, by_attribute(model))
    run(tmp_path / "canonical", tmp_path / "back", "canonical", "hf")
    assert_same(load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors"))
    loaded, info = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values()), info
    for ours, theirs in zip(forward(loaded.eval()), forward(model), strict=True):
        assert torch.equal(ours, theirs)
    if not kind.__name__.endswith(("MaskedLM", "PreTraining")):  # those two want the tied copies spelled out
        saved = {name: torch.tensor(tensor) for name, tensor in load_file(tmp_path / "back/model.safetensors").items()}
        transformers_model(kind).load_state_dict(saved, strict=True)
    assert AutoConfig.from_pretrained(tmp_path / "back").architectures == [kind.__name__]


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_pytorch_bin_with_copies_and_old_spellings(tmp_path, form):
    model = transformers_model()
    state = model.state_dict()
    assert "cls.predictions.decoder.weight" in state and "cls.predictions.decoder.bias" in state
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
             for name, tensor in state.items()}  # fmt: skip
    state["bert.embeddings.position_ids"] = torch.arange(19).expand((1, -1))
    torch.save(state, tmp_path / "pytorch_model.bin", **form)
    model.config.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path, "hf")
    assert_same(checkpoint.tensors, by_attribute(model))
    assert checkpoint.report.unused == {
        "cls.predictions.decoder.weight": "copy of embeddings.word.weight",
        "cls.predictions.decoder.bias": "copy of heads.mlm.bias",
        "bert.embeddings.position_ids": "buffer that counts 0, 1, 2, ...",
    }
    assert len(checkpoint.report.used) == len(state) - 3


def test_sharded_safetensors_and_bins(tmp_path):
    model = transformers_model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    _, tensors = load_any(tmp_path)
    assert_same(tensors, by_attribute(model))
    shards = sorted(set(index["weight_map"].values()))
    for shard in shards:  # the same as .bin
        held = {name: torch.tensor(tensor) for name, tensor in load_file(tmp_path / shard).items()}
        torch.save(held, tmp_path / shard.replace(".safetensors", ".bin"))
    bins = {name: shard.replace(".safetensors", ".bin") for name, shard in index["weight_map"].items()}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": bins}))
    assert_same(read_checkpoint(tmp_path / "pytorch_model.bin.index.json").tensors, tensors)
    for name, shard, complaint in [
        ("bert.pooler.dense.bias", "../" + shards[0], "no weights file beside the index"),
        ("bert.pooler.dense.bias", "gone.safetensors", "gone.safetensors: weights not found"),
        ("bert.pooler.dense.extra", shards[0], "does not hold what the index says: bert.pooler.dense.extra"),
    ]:
        wrong = {**index, "weight_map": {**index["weight_map"], name: shard}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=complaint):
            load_any(tmp_path)


def save_hf(folder, state, config=TINY):
    folder.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config.to_dict()}))
    return folder


def test_a_copy_must_be_a_copy(tmp_path):
    state = {name: tensor.numpy() for name, tensor in transformers_model().state_dict().items()}
    changed = state["cls.predictions.decoder.weight"].copy()
    changed[5, 5] = np.nextafter(changed[5, 5], np.float32(np.inf))
    with pytest.raises(UserError, match=r"decoder\.weight differs from embeddings\.word\.weight"):
        load_any(save_hf(tmp_path / "a", {**state, "cls.predictions.decoder.weight": changed}))
    with pytest.raises(UserError, match="position_ids"):
        load_any(save_hf(tmp_path / "b", {**state, "bert.embeddings.position_ids": np.arange(2, 21)}))
    only_copy = {name: tensor for name, tensor in state.items() if name != "cls.predictions.bias"}
    _, tensors = load_any(save_hf(tmp_path / "c", only_copy))
    assert same_bits(tensors["heads.mlm.bias"], state["cls.predictions.decoder.bias"])


def test_missing_and_extra_tensors_are_both_listed(tmp_path):
    state = {name: tensor.numpy() for name, tensor in transformers_model(BertModel).state_dict().items()}
    del state["encoder.layer.2.attention.self.key.bias"]
    state["encoder.layer.0.adapter.weight"] = state["classify.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(UserError) as error:
        load_any(save_hf(tmp_path / "a", state))
    text = str(error.value)
    assert "2 not known:\n    encoder.layer.0.adapter.weight\n    classify.weight\n" in text.replace(
        "    classify.weight\n    encoder.layer.0.adapter.weight\n",
        "    encoder.layer.0.adapter.weight\n    classify.weight\n",
    )
    assert "1 missing:\n    bert.encoder.layer.2.attention.self.key.bias\n" in text
    with pytest.raises(
        UserError, match=r"1 missing from the file:\n +bert\.encoder\.layer\.2\.attention\.self\.key\.bias"
    ):
        read_checkpoint(tmp_path / "a", allow_unused=["classify.*", "*.adapter.*"])
    both = {name: tensor.numpy() for name, tensor in transformers_model(BertModel).state_dict().items()}
    both["embeddings.LayerNorm.gamma"] = both["embeddings.LayerNorm.weight"]
    with pytest.raises(UserError, match="1 given twice"):
        load_any(save_hf(tmp_path / "b", both))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", BERT.formats)
@pytest.mark.parametrize("first", BERT.formats)
def test_every_pair_round_trips_bit_for_bit(tmp_path, first, other, dtype):
    tensors = random_tensors(dtype=dtype)
    start = write_checkpoint(first, tmp_path / "start", TINY, tensors)
    (tmp_path / "start/vocab.txt").write_text("[PAD]\n[UNK]\n")
    run(start.parent, tmp_path / "there", first, other)
    back = run(tmp_path / "there", tmp_path / "back", other, first)
    checkpoint = read_checkpoint(tmp_path / "there")
    assert (checkpoint.format, checkpoint.config) == (other, TINY)
    assert_same(checkpoint.tensors, tensors)
    if first != "canonical":  # its header says where it came from
        assert (back / start.name).read_bytes() == start.read_bytes()
    assert_same(read_checkpoint(back).tensors, tensors)
    assert (back / "vocab.txt").read_text() == "[PAD]\n[UNK]\n"
    assert json.loads((back / "config.json").read_text()) == json.loads((tmp_path / "start/config.json").read_text())


def test_minilm_through_every_format(tmp_path, minilm_dir):
    source = load_file(minilm_dir / "model.safetensors")
    previous, at = "hf", minilm_dir
    for step, following in enumerate(["mindspore-zoo", "canonical", "mindspore", "hf"]):
        at = run(at, tmp_path / str(step), previous, following)
        previous = following
    del source["embeddings.position_ids"]
    assert_same(load_file(at / "model.safetensors"), source)
    assert (at / "vocab.txt").read_bytes() == (minilm_dir / "vocab.txt").read_bytes()
    original, info = BertModel.from_pretrained(at, output_loading_info=True)
    assert not any(info.values())
    for ours, theirs in zip(
        forward(original.eval()), forward(BertModel.from_pretrained(minilm_dir).eval()), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_bare_ckpt_of_ours_needs_its_config(tmp_path):
    start = write_checkpoint("mindspore", tmp_path / "a", TINY, random_tensors())
    config = (tmp_path / "a/config.json").rename(tmp_path / "c.json")
    with pytest.raises(UserError, match=r"no config\.json beside it"):
        load_any(start)
    assert read_checkpoint(start, config_file=config).config == TINY


@pytest.mark.parametrize("kind", BERT.formats)
def test_a_summary_says_what_weights_were_taken_for(tmp_path, kind):
    tensors = random_tensors(groups=("heads.span",))
    file = write_checkpoint(kind, tmp_path, TINY, tensors)
    for path in (tmp_path, file):
        checkpoint = read_checkpoint(path)
        assert checkpoint.config == TINY
        assert_same(checkpoint.tensors, tensors)
        said = checkpoint.summary()
        assert f"taken for {kind}\n" in said and "the source has no pooler" in said


# ---- the command line


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "models.bert.migrate", *map(str, arguments)], capture_output=True, text=True
    )


def test_command_line_ends_with_an_error_and_no_traceback(tmp_path):
    save_canonical(tmp_path / "a", TINY, random_tensors())
    done = command("--from", "canonical", "--to", "hf", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 0 and "written as hf" in done.stdout and not done.stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/lfs.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "a/text.bin").write_text("hello, this is not a set of weights")
    for flags, complaint in [
        (("--from", "canonical", "--to", "hf", tmp_path / "a", tmp_path / "b"), "not an empty folder"),
        (("--from", "hf", "--to", "canonical", tmp_path / "a", tmp_path / "c"), "these are canonical weights, not hf"),
        (
            ("--from", "mindspore", "--to", "hf", tmp_path / "a", tmp_path / "c"),
            "a/model.safetensors: these are canonical weights, not mindspore",
        ),
        (("--from", "hf", "--to", "hf", tmp_path / "empty", tmp_path / "c"), "no weights in this folder; looked for"),
        (("--from", "hf", "--to", "hf", tmp_path / "empty", tmp_path / "c"), "pytorch_model.bin.index.json"),
        (("--from", "hf", "--to", "hf", tmp_path / "none", tmp_path / "c"), "none: weights not found"),
        (("--from", "hf", "--to", "hf", tmp_path / "a/lfs.bin", tmp_path / "c"), "git lfs pull"),
        (("--from", "hf", "--to", "hf", tmp_path / "a/text.bin", tmp_path / "c"), "neither safetensors"),
    ]:
        failed = command(*flags)
        assert failed.returncode == 2 and failed.stderr.startswith("error: "), failed.stderr
        assert complaint in failed.stderr and "Traceback" not in failed.stderr
    assert not (tmp_path / "c").exists()


def test_dtype(tmp_path):
    tensors = random_tensors()
    save_canonical(tmp_path / "a", TINY, tensors)
    run(tmp_path / "a", tmp_path / "half", "canonical", "mindspore", "--dtype", "float16")
    half = read_checkpoint(tmp_path / "half").tensors
    assert all(
        np.array_equal(half[name], tensor.astype(np.float16), equal_nan=True) for name, tensor in tensors.items()
    )
    assert {tensor.dtype for tensor in half.values()} == {np.dtype(np.float16)}
    run(tmp_path / "half", tmp_path / "full", "mindspore", "canonical", "--dtype", "float32")
    _, full = load_any(tmp_path / "full")
    assert all(np.array_equal(full[name], half[name], equal_nan=True) for name in full)
    assert {tensor.dtype for tensor in full.values()} == {np.dtype(np.float32)}
    save_canonical(tmp_path / "big", TINY, {**tensors, "pooler.bias": np.full(24, 7e4, np.float32)})
    with pytest.raises(UserError, match=r"pooler\.bias: values beyond the range of float16"):
        run(tmp_path / "big", tmp_path / "x", "canonical", "hf", "--dtype", "float16")


def test_chinese_half_precision_weights(tmp_path, shared_data):
    source = shared_data / "weights/e5-small-zh"
    run(source, tmp_path / "a", "hf", "mindspore")
    run(tmp_path / "a", tmp_path / "b", "mindspore", "hf")
    assert_same(load_file(tmp_path / "b/model.safetensors"), load_file(source / "model.safetensors"))


def test_all_heads_at_once(tmp_path):
    """No transformers class has them all; the file does, and no architecture is claimed."""
    save_canonical(tmp_path / "a", TINY, random_tensors())
    run(tmp_path / "a", tmp_path / "b", "canonical", "hf")
    assert "architectures" not in json.loads((tmp_path / "b/config.json").read_text())
    assert {"qa_outputs.bias", "cls.seq_relationship.bias"} <= set(load_file(tmp_path / "b/model.safetensors"))
