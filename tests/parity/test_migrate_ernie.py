"""ERNIE's weights from format to format: against Paddle, transformers, and names copied by hand from their sources."""

import filecmp
import json

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    BertTokenizer,
    ErnieConfig,
    ErnieForMaskedLM,
    ErnieForNextSentencePrediction,
    ErnieForPreTraining,
    ErnieForQuestionAnswering,
    ErnieForSequenceClassification,
    ErnieForTokenClassification,
    ErnieModel,
)

from data_tools.tokenization import WordPieceTokenizer, read_vocab
from models.common.errors import UserError
from models.common.weights.canonical import save_canonical
from models.common.weights.formats import ERNIE
from models.common.weights.names import CANONICAL_SHAPES
from models.common.weights.paddle_names import ERNIE_DYGRAPH, FLUID, PADDLENLP_ERNIE
from models.common.weights.pdparams import read_pdparams, write_pdparams
from models.common.weights.reading import read_checkpoint
from models.common.weights.writing import write_checkpoint
from tests.paddle_weights import ERNIE_CONFIG, NLP_CONFIG, SIZES, SPELLINGS, small_ernie, weights, write_archive
from tests.tolerances import TOLERANCES
from tests.weights_data import DTYPES, GROUPS, TINY, assert_same, load_any, random_tensors, run, run_ernie

HEADS = ("pretraining", "classifier", "tagger", "span")


def write_pickled(folder, spelling, head, **config):
    """Weights in .pdparams beside the config of the format; what they must be in ours."""
    theirs, ours = weights(spelling, head)
    folder.mkdir(parents=True)
    write_pdparams(folder / "model_state.pdparams", theirs)
    name = ERNIE.formats[spelling].config_files[0]
    (folder / name).write_text(json.dumps((NLP_CONFIG if spelling == "paddlenlp" else ERNIE_CONFIG) | config))
    return ours


@pytest.mark.parametrize("head", [None, *HEADS])
def test_an_archive_of_baidu_to_canonical_and_back(tmp_path, paddle, capsys, head):
    _, ours = write_archive(tmp_path / "ernie", paddle, head)
    run_ernie(tmp_path / "ernie", tmp_path / "canonical", "fluid", "canonical")
    config, tensors = load_any(tmp_path / "canonical")
    assert config == TINY  # epsilon 1e-5, relu, and the width of the feed-forward layers from the tensors
    assert_same(tensors, ours)
    said = capsys.readouterr().out
    assert "taken for fluid" in said and f"used: {len(ours)} tensors" in said
    assert "not said there, and so as fluid weights have it: layer_norm_eps 1e-05" in said
    back = run_ernie(tmp_path / "canonical", tmp_path / "back", "canonical", "fluid")
    names = [path.name for path in (tmp_path / "ernie/params").iterdir()]
    assert filecmp.cmpfiles(tmp_path / "ernie/params", back / "params", names, shallow=False) == (names, [], [])
    assert len(names) == len(list((back / "params").iterdir())) == len(ours)
    assert (back / "vocab.txt").read_bytes() == (tmp_path / "ernie/vocab.txt").read_bytes()
    assert json.loads((back / "ernie_config.json").read_text())["layer_norm_eps"] == 1e-5
    assert_same(read_checkpoint(tmp_path / "ernie/params", "fluid").tensors, ours)  # the folder inside the archive


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_in_pdparams(tmp_path, spelling, head):
    ours = write_pickled(tmp_path / "a", spelling, head)
    told = ("--head", head) if spelling != "fluid" and head != "pretraining" else ()
    run_ernie(tmp_path / "a", tmp_path / "b", spelling, "canonical", *told)
    assert_same(load_any(tmp_path / "b")[1], ours)
    run_ernie(tmp_path / "b", tmp_path / "c", "canonical", spelling)
    again = read_checkpoint(tmp_path / "c", spelling, head=told[1] if told else None)
    assert_same(again.tensors, ours)
    if spelling != "fluid":
        assert_same(read_pdparams(tmp_path / "c/model_state.pdparams"), weights(spelling, head)[0])


def test_the_last_layer_of_paddlenlp_is_told_by_its_config_or_the_user(tmp_path):
    for kind, head in (("Sequence", "classifier"), ("Token", "tagger")):
        classes = [f"ErnieFor{kind}Classification"]
        ours = write_pickled(tmp_path / head, "paddlenlp", head, architectures=classes)
        assert_same(read_checkpoint(tmp_path / head).tensors, ours)
    write_pickled(tmp_path / "span", "paddlenlp", "span", architectures=["ErnieForQuestionAnswering"])
    assert "heads.span.bias" in read_checkpoint(tmp_path / "span").tensors
    write_pickled(tmp_path / "unknown", "paddlenlp", "classifier")
    with pytest.raises(UserError, match="say --head classifier or --head tagger or --head span"):
        read_checkpoint(tmp_path / "unknown")
    with pytest.raises(UserError, match=r"of another shape|do not fit"):
        read_checkpoint(tmp_path / "unknown", head="span")  # three classes are no beginnings and ends


@pytest.mark.parametrize("head", [None, *HEADS])
def test_paddle_and_transformers_compute_the_same_with_migrated_weights(tmp_path, paddle, head):
    """Every matrix in its place and turned: a forward pass on each side, from Paddle's file to Hugging Face's."""
    model = small_ernie(paddle, head)
    folder = tmp_path / "theirs"
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    (folder / "config.json").write_text(json.dumps(NLP_CONFIG))
    told = () if head in (None, "pretraining") else ("--head", head)
    run_ernie(folder, tmp_path / "hf", "paddlenlp", "hf", *told)
    run_ernie(tmp_path / "hf", tmp_path / "back", "hf", "paddlenlp")
    back = paddle.load(str(tmp_path / "back/model_state.pdparams"))
    assert_same({name: tensor.numpy() for name, tensor in back.items()},
                {name: tensor.numpy() for name, tensor in model.state_dict().items()})  # fmt: skip
    kinds = dict(zip(HEADS, (ErnieForPreTraining, ErnieForSequenceClassification, ErnieForTokenClassification,
                             ErnieForQuestionAnswering), strict=True))  # fmt: skip
    peer, info = kinds.get(head, ErnieModel).from_pretrained(
        tmp_path / "hf", output_loading_info=True, **({"num_labels": SIZES["C"]} if head in HEADS[1:3] else {})
    )
    assert info["mismatched_keys"] == set() and info["missing_keys"] == set()
    generator = np.random.default_rng(5)
    ids, mask = generator.integers(1, SIZES["V"], (2, 11)), np.ones((2, 11), np.int64)
    types, mask[1, 7:] = (np.arange(11) > 4).astype(np.int64)[None].repeat(2, 0), 0
    _, pooled, *logits = model(*map(paddle.to_tensor, (ids, types, mask)))
    with torch.no_grad():
        named = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        outputs = peer.eval()(**{name: torch.tensor(values) for name, values in named.items()})
    if head == "span":
        wanted = [torch.stack([outputs.start_logits, outputs.end_logits], -1)]
    elif head == "pretraining":
        # Baidu's class 1 says that the second text follows, and that of transformers' documentation that it does not.
        wanted = [outputs.prediction_logits, outputs.seq_relationship_logits.flip(-1)]
    else:
        wanted, logits = ([outputs.pooler_output], [pooled]) if head is None else ([outputs.logits], logits)
    tolerance = TOLERANCES["logits"]
    for ours, theirs in zip(logits, wanted, strict=True):
        real = mask[..., None].astype(bool) if ours.ndim == 3 else np.bool_(True)
        np.testing.assert_allclose(
            np.where(real, ours.numpy(), 0), np.where(real, theirs.numpy(), 0), tolerance.rtol, tolerance.atol
        )


def transformers_model(kind):
    torch.manual_seed(0)
    model = kind(ErnieConfig(**TINY.to_dict()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


@pytest.mark.parametrize(
    "kind",
    [ErnieModel, ErnieForPreTraining, ErnieForMaskedLM, ErnieForNextSentencePrediction, ErnieForQuestionAnswering,
     ErnieForSequenceClassification, ErnieForTokenClassification],
)  # fmt: skip
def test_transformers_and_back(tmp_path, kind):
    model = transformers_model(kind)
    model.save_pretrained(tmp_path / "theirs")
    run_ernie(tmp_path / "theirs", tmp_path / "paddle", "hf", "paddlenlp")
    run_ernie(tmp_path / "paddle", tmp_path / "back", "paddlenlp", "hf")
    assert_same(load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors"))
    loaded, info = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values()), info
    assert loaded.config.model_type == "ernie" and loaded.config.architectures == [kind.__name__]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", ERNIE.formats)
def test_every_format_round_trips_bit_for_bit(tmp_path, other, dtype):
    tensors = random_tensors(dtype=dtype, groups=tuple(group for group in GROUPS if group != "heads.span"))
    save_canonical(tmp_path / "a", TINY, tensors, labels=["x", "y"])
    run_ernie(tmp_path / "a", tmp_path / "b", "canonical", other)
    checkpoint = read_checkpoint(tmp_path / "b", families=[ERNIE])
    assert (checkpoint.format, checkpoint.config, checkpoint.labels) == (other, TINY, ("x", "y"))
    run_ernie(tmp_path / "b", tmp_path / "c", other, "canonical")
    assert_same(load_any(tmp_path / "c")[1], tensors)


# ---- the old ModelZoo, of which ERNIE's names are BERT's with another word

ZOO_NAMES = {
    "ernie.ernie.ernie_embedding_lookup.embedding_table": "embeddings.word.weight",
    "ernie.ernie.ernie_embedding_postprocessor.token_type_embedding.embedding_table": "embeddings.token_type.weight",
    "ernie.ernie.ernie_embedding_postprocessor.full_position_embedding.embedding_table": "embeddings.position.weight",
    "ernie.ernie.ernie_embedding_postprocessor.layernorm.gamma": "embeddings.norm.weight",
    "ernie.ernie.ernie_encoder.layers.1.attention.attention.query_layer.weight":
        "encoder.layers.1.attention.query.weight",
    "ernie.ernie.ernie_encoder.layers.2.attention.output.layernorm.beta": "encoder.layers.2.attention.norm.bias",
    "ernie.ernie.ernie_encoder.layers.0.intermediate.bias": "encoder.layers.0.feed_forward.up.bias",
    "ernie.ernie.ernie_encoder.layers.0.output.dense.weight": "encoder.layers.0.feed_forward.down.weight",
    "ernie.ernie.dense.weight": "pooler.weight",
}  # fmt: skip
ZOO_HEADS = {
    "tagger": {"ernie.dense_1.weight": "heads.tagger.weight", "ernie.dense_1.bias": "heads.tagger.bias"},
    "classifier": {"ernie.dense_1.weight": "heads.classifier.weight", "ernie.dense_1.bias": "heads.classifier.bias"},
    "span": {"ernie.dense1.weight": "heads.span.weight", "ernie.dense1.bias": "heads.span.bias"},
}


@pytest.mark.parametrize("head", ZOO_HEADS)
def test_modelzoo_names(tmp_path, capsys, head):
    tensors = random_tensors(groups=("pooler", f"heads.{head}"))
    save_canonical(tmp_path / "a", TINY, tensors)
    run_ernie(tmp_path / "a", tmp_path / "b", "canonical", "mindspore-zoo")
    assert "compute with relu and epsilon 1e-7, whatever config.json says" in capsys.readouterr().out
    held = {name: one.asnumpy() for name, one in ms.load_checkpoint(str(tmp_path / "b/model.ckpt")).items()}
    assert len(held) == len(tensors)
    for name, canonical in (ZOO_NAMES | ZOO_HEADS[head]).items():
        assert_same({"": held[name]}, {"": tensors[canonical]})
    told = () if head == "span" else ("--head", head)
    run_ernie(tmp_path / "b", tmp_path / "c", "mindspore-zoo", "canonical", *told)
    assert_same(load_any(tmp_path / "c")[1], tensors)


def test_modelzoo_classes_of_the_next_sentence(tmp_path):
    """Its records say 1 for the true next, as Baidu's; BERT's of the same ModelZoo say 0, as ours and transformers'."""
    tensors = random_tensors(groups=("pooler", "heads.nsp"))
    save_canonical(tmp_path / "a", TINY, tensors)
    for carry, name, step in ((run_ernie, "ernie", -1), (run, "bert", 1)):
        carry(tmp_path / "a", tmp_path / name, "canonical", "mindspore-zoo")
        held = ms.load_checkpoint(str(tmp_path / name / "model.ckpt"))
        for kind in ("weight", "bias"):
            theirs = held[f"{name}.cls2.dense.{kind}"].asnumpy()
            np.testing.assert_array_equal(theirs, tensors[f"heads.nsp.{kind}"][::step])
        carry(tmp_path / name, tmp_path / f"{name}_back", "mindspore-zoo", "canonical")
        assert_same(load_any(tmp_path / f"{name}_back")[1], tensors)
    run_ernie(tmp_path / "a", tmp_path / "hf", "canonical", "hf")
    theirs = load_file(tmp_path / "hf/model.safetensors")["cls.seq_relationship.weight"]
    np.testing.assert_array_equal(theirs, tensors["heads.nsp.weight"])


# ---- tables


@pytest.mark.parametrize("table", [FLUID, PADDLENLP_ERNIE, ERNIE_DYGRAPH])
def test_tables_name_everything_of_ernie_once(table):
    lacking = ("heads.crf", "heads.lstm", "encoder.layers.{i}.attention.relative")
    named = {name for head in ("heads.tagger", "heads.span", "heads.classifier")
             for name, _ in (table if table.has(head) else table.for_head(head)).rows}  # fmt: skip
    assert named == {name for name in CANONICAL_SHAPES if not name.startswith(lacking)}
    assert len({other for _, other in table.rows}) == len(table.rows)
    square = {name for name, shape in CANONICAL_SHAPES.items() if len(shape) == 2 and not name.startswith(lacking)}
    assert set(table.reversed_classes) == {name for name in named if name.startswith("heads.nsp.")}
    assert set(table.transposed) == square - {name for name in square if name.startswith("embeddings.")}


@pytest.mark.parametrize("task", ["", "xnli"])
def test_a_classifier_may_carry_the_name_of_its_task(tmp_path, paddle, task):
    _, ours = write_archive(tmp_path / "ernie", paddle, "classifier")
    for name in ("cls_out_w", "cls_out_b"):
        (tmp_path / "ernie/params" / name).rename(tmp_path / "ernie/params" / f"{task}_{name}")
    assert_same(read_checkpoint(tmp_path / "ernie").tensors, ours)
    (tmp_path / "ernie/params/other_cls_out_b").write_bytes((tmp_path / f"ernie/params/{task}_cls_out_b").read_bytes())
    with pytest.raises(UserError, match="1 given twice"):
        read_checkpoint(tmp_path / "ernie")


# ---- what else lies in such folders and files


def test_training_state_and_other_files_stay_behind_and_are_named(tmp_path, paddle, capsys):
    _, ours = write_archive(tmp_path / "ernie", paddle)
    params = tmp_path / "ernie/params"
    for name in ("word_embedding_moment1_0", "pooled_fc.w_0_beta1_pow_acc_0", "learning_rate_0", "@LR_DECAY_COUNTER@"):
        paddle.save(paddle.ones([2]), str(params / name), use_binary_format=True)
    (params / ".DS_Store").write_bytes(b"Bud1")
    run_ernie(tmp_path / "ernie", tmp_path / "a", "fluid", "canonical")
    said = capsys.readouterr().out
    assert "unused: 4" in said and "word_embedding_moment1_0 (optimizer state)" in said
    assert "other files, left behind: .DS_Store" in said
    assert_same(load_any(tmp_path / "a")[1], ours)
    paddle.save(paddle.ones([2]), str(params / "stranger"), use_binary_format=True)
    with pytest.raises(UserError, match=r"1 not known:\n +stranger"):
        read_checkpoint(tmp_path / "ernie")
    assert read_checkpoint(tmp_path / "ernie", allow_unused=["stranger"]).report.unused["stranger"] == "allowed"
    (params / "mask_lm_out_fc.b_0").write_bytes(b"")
    with pytest.raises(UserError, match=r"mask_lm_out_fc\.b_0: not a Paddle variable"):
        read_checkpoint(tmp_path / "ernie", allow_unused=["stranger"])


def test_missing_and_misshapen_variables_are_named_as_in_the_folder(tmp_path, paddle):
    write_archive(tmp_path / "ernie", paddle)
    params = tmp_path / "ernie/params"
    (params / "encoder_layer_1_ffn_fc_0.b_0").unlink()
    paddle.save(paddle.ones([24, 41]), str(params / "encoder_layer_2_ffn_fc_0.w_0"), use_binary_format=True)
    with pytest.raises(UserError) as error:
        read_checkpoint(tmp_path / "ernie")
    assert "1 missing from the file:\n    encoder_layer_1_ffn_fc_0.b_0\n" in str(error.value)
    assert "encoder_layer_2_ffn_fc_0.w_0: (24, 41) where (24, 40) is wanted" in str(error.value)


@pytest.mark.parametrize("keys", [{"sent_type_vocab_size": 2}, {"sent_type_vocab_size": 2, "type_vocab_size": 7}])
def test_keys_of_other_configs_of_baidu(tmp_path, paddle, keys):
    write_archive(tmp_path / "ernie", paddle)
    settings = {name: value for name, value in ERNIE_CONFIG.items() if name != "type_vocab_size"} | keys
    (tmp_path / "ernie/ernie_config.json").write_text(json.dumps(settings))
    assert read_checkpoint(tmp_path / "ernie").config == TINY


def test_an_embedding_of_the_task_is_refused(tmp_path, paddle):
    write_archive(tmp_path / "ernie", paddle)
    paddle.save(paddle.ones([16, 24]), str(tmp_path / "ernie/params/task_embedding"), use_binary_format=True)
    with pytest.raises(UserError, match=r"1 of another network:\n +task_embedding: ERNIE 2\.0 adds"):
        read_checkpoint(tmp_path / "ernie", allow_unused=["*"])
    model = ErnieModel(ErnieConfig(**TINY.to_dict(), use_task_id=True))
    model.save_pretrained(tmp_path / "hf")
    with pytest.raises(UserError, match=r"task_type_embeddings\.weight: ERNIE 2\.0 adds"):
        read_checkpoint(tmp_path / "hf", families=[ERNIE])


def test_tied_copies_of_paddlenlp_are_compared(tmp_path):
    theirs, ours = weights("paddlenlp")
    copies = {
        "cls.predictions.decoder.weight": theirs["ernie.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": theirs["cls.predictions.decoder_bias"],
    }
    (tmp_path / "config.json").write_text(json.dumps(NLP_CONFIG))
    save_file({**theirs, **copies}, tmp_path / "model.safetensors")  # PaddleNLP writes these, too
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.format == "paddlenlp" and set(checkpoint.report.unused) == set(copies)
    assert_same(checkpoint.tensors, ours)
    copies["cls.predictions.decoder.weight"] = copies["cls.predictions.decoder.weight"] + 1
    save_file({**theirs, **copies}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"decoder\.weight differs from embeddings\.word\.weight"):
        read_checkpoint(tmp_path)


def test_a_head_that_is_not_there_is_refused(tmp_path):
    write_pickled(tmp_path / "a", "fluid", "pretraining")
    with pytest.raises(UserError, match=r"--head span, but what is there is pooler, heads\.mlm, heads\.nsp; leave"):
        run_ernie(tmp_path / "a", tmp_path / "b", "fluid", "canonical", "--head", "span")
    assert not (tmp_path / "b").exists()


def test_paddlenlp_without_its_prefix(tmp_path):
    theirs, ours = weights("paddlenlp", None)
    (tmp_path / "config.json").write_text(json.dumps(NLP_CONFIG))
    write_pdparams(tmp_path / "x.pdparams", {name.removeprefix("ernie."): it for name, it in theirs.items()})
    assert_same(read_checkpoint(tmp_path, "paddlenlp").tensors, ours)


def test_heads_without_a_place_are_named(tmp_path):
    save_canonical(tmp_path / "a", TINY, random_tensors(groups=("heads.tagger", "heads.crf")))
    for to in ("fluid", "paddlenlp", "mindspore-zoo"):
        with pytest.raises(UserError, match=rf"{to} weights have no place for heads\.crf\.transitions"):
            run_ernie(tmp_path / "a", tmp_path / "b", "canonical", to)


def test_real_chinese_weights_through_every_format(tmp_path, shared_data):
    source = shared_data / "weights/e5-small-zh-ernie"
    first = read_checkpoint(source)
    path = tmp_path / "0"
    write_checkpoint("fluid", path, first.config, first.tensors, first.vocab, family=ERNIE)
    for step, (at, to) in enumerate([("fluid", "paddlenlp"), ("paddlenlp", "mindspore-zoo"), ("mindspore-zoo", "hf")]):
        path = run_ernie(path, tmp_path / str(step + 1), at, to)
    assert_same(read_checkpoint(path).tensors, first.tensors)
    assert (tmp_path / "0/vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()


@pytest.mark.parametrize("to", ["hf", "paddlenlp"])
def test_baidus_vocabulary_becomes_one_that_transformers_reads(tmp_path, shared_data, to):
    numbered = shared_data / "vocab/ernie1.0_vocab.txt"  # token<TAB>id
    write_checkpoint(to, tmp_path, TINY, random_tensors(), numbered, family=ERNIE)
    assert read_vocab(tmp_path / "vocab.txt") == read_vocab(numbered)
    text = "房间很干净, 服务unbelievable 也好"
    theirs = BertTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    [ours] = WordPieceTokenizer(numbered, lower_case=True).encode([text])
    assert theirs == ours.ids and ours.ids.count(ours.ids[0]) == 1


def test_a_vocabulary_with_wrong_ids_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\t0\n[UNK]\t7\n")
    with pytest.raises(UserError, match=r"vocab\.txt, line 2: expected a token, a tab and the id 1"):
        write_checkpoint("hf", tmp_path / "hf", TINY, random_tensors(), tmp_path / "vocab.txt", family=ERNIE)
    assert not (tmp_path / "hf").exists()
