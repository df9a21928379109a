"""The entity command: LSTM and CRF on the real MiniLM, the rest on a tiny model; CLUE's benchmark; what is refused."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from data_tools.converters.tagging import TaggingConversion, convert_tagging
from data_tools.feature_store import load_features
from data_tools.readers.tagging import CLUENER_TYPES, TaggingLayout
from models.bert.run_ner import main, parse
from models.common.config import leaves
from models.common.errors import UserError
from models.common.finetune.tagging import TaggingConfig, TaggingTask, unit_of
from models.common.metrics.cluener import main as score_cluener
from models.common.tagging import Entity, encode_entities, tag_names
from models.common.weights.reading import read_checkpoint
from tests.commands import flags
from tests.record_files import write_foreign
from tests.tiny import assert_heads_are_named, write_pretrained, write_weights

# What the heads need to learn in seconds.
LSTM = {"optimizer.head_learning_rate": "4e-2", "epoch_num": 15}
MINILM = {"optimizer.learning_rate": "5e-4", "optimizer.head_learning_rate": "5e-3", "epoch_num": 2}
PEOPLE, PLACES = ("ida holm", "olaf brandt", "mara quist"), ("lund", "riga", "the aln")
TEMPLATES = ("{0} went to {1}.", "in {1} lives {0}", "{0} and the mayor of {1} met", "nobody saw {1} or {0} again")


def sentences() -> list[dict]:
    """CLUENER's format, with the entities where they are."""
    lines = []
    for template in TEMPLATES:
        for person in PEOPLE:
            for place in PLACES:
                text = template.format(person, place)
                label = {}
                for kind, entity in (("name", person), ("address", place)):
                    start = text.index(entity)
                    label[kind] = {entity: [[start, start + len(entity) - 1]]}
                lines.append({"text": text, "label": label})
    return lines


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder, vocab = tmp_path_factory.mktemp("ner"), minilm_dir / "vocab.txt"
    raw = write_lines(folder / "cluener.json", sentences())
    bare = write_lines(folder / "test.json", [{"text": line["text"]} for line in sentences()])
    made = {
        "raw": raw,
        "bare": bare,
        "vocab": vocab,
        "tiny": write_weights(folder / "weights", vocab),
        "weights": minilm_dir,
    }
    for name, scheme in (("BIO", "BIO"), ("BMES", "BMES")):
        convert_tagging(TaggingConversion(
            raw, vocab, folder / name, TaggingLayout("cluener", "word"), scheme=scheme, max_seq_length=32,
            dataset_format="numpy",
        ))  # fmt: skip
        made[name] = folder / name
    return made


def run(capsys=None, **settings: object) -> dict:
    main(flags(settings))
    return json.loads(capsys.readouterr().out.splitlines()[-1]) if capsys else {}


def training(inputs, run_folder: Path, capsys=None, scheme: str = "BIO", **changes: object) -> dict:
    settings = {
        "do_train": "true", "do_eval": "true", "epoch_num": 8, "train_batch_size": 6, "max_seq_length": 32,
        "train_data_file_path": inputs[scheme], "eval_data_file_path": inputs[scheme], "unit": "word",
        "load_pretrain_checkpoint_path": inputs["tiny"], "save_finetune_checkpoint_path": run_folder,
        "optimizer.learning_rate": "1e-2", "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0,
        "eval_steps": 100, "save_checkpoint_steps": 100, **changes,
    }  # fmt: skip
    return run(capsys, **settings)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    training(inputs, folder, use_crf="true")
    return folder


def test_weights_of_pretraining_go_straight_in(inputs, tmp_path, capsys):
    pretrained = write_pretrained(tmp_path / "bert", inputs["vocab"])
    training(inputs, tmp_path / "run", load_pretrain_checkpoint_path=pretrained, do_eval="false", epoch_num=1)
    assert_heads_are_named(capsys.readouterr().out)


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def character_tags(text: str, entries: list[dict]) -> list[str]:
    return encode_entities([Entity(item["start"], item["end"], item["type"]) for item in entries], len(text), "BIO")


def test_it_learns_and_scores_as_seqeval_does(trained):
    scores, entries = json.loads((trained / "eval.json").read_text()), predictions(trained)
    assert scores["f1"] > 0.8
    texts = [line["text"] for line in sentences()]
    gold = [character_tags(text, entry["gold"]) for text, entry in zip(texts, entries, strict=True)]
    found = [character_tags(text, entry["entities"]) for text, entry in zip(texts, entries, strict=True)]
    assert scores["f1"] == f1_score(gold, found, mode="strict", scheme=IOB2)
    for line, entry in zip(sentences(), entries, strict=True):
        wanted = {(kind, place[0], place[1] + 1) for kind, places in line["label"].items()
                  for spans in places.values() for place in spans}  # fmt: skip
        assert {(item["type"], item["start"], item["end"]) for item in entry["gold"]} == wanted
    assert read_checkpoint(trained / "best").labels == tuple(tag_names(CLUENER_TYPES, "BIO"))


@pytest.mark.parametrize(
    ("use_crf", "with_lstm", "weights", "settings"),
    [
        ("false", "false", "tiny", {}),
        ("false", "true", "tiny", LSTM),
        ("true", "true", "weights", MINILM),
    ],
)
def test_every_head_learns(inputs, tmp_path, use_crf, with_lstm, weights, settings):
    training(
        inputs,
        tmp_path,
        use_crf=use_crf,
        with_lstm=with_lstm,
        load_pretrain_checkpoint_path=inputs[weights],
        **settings,
    )
    assert json.loads((tmp_path / "eval.json").read_text())["f1"] > 0.6
    names = load_file(tmp_path / "best/model.safetensors")
    assert ("heads.crf.start" in names, "heads.lstm.forward.bias" in names) == (use_crf == "true", with_lstm == "true")


def write_conll(path: Path) -> Path:
    """The same sentences as words with tags, punctuation apart."""
    lines = []
    for line in sentences():
        places = [(place[0], place[1] + 1, kind) for kind, places in line["label"].items()
                  for spans in places.values() for place in spans]  # fmt: skip
        for word in re.finditer(r"\w+|[^\w\s]", line["text"]):
            tag = next((("B-" if begin == word.start() else "I-") + kind for begin, end, kind in places
                        if begin <= word.start() < end), "O")  # fmt: skip
            lines.append(f"{word[0]} {tag}")
        lines.append("")
    path.write_text("\n".join(lines))
    return path


def test_what_carries_a_tag_is_told_by_the_features(inputs, tmp_path):
    """Of a CoNLL file by its words: who asks the run later is asked by words."""
    raw = write_conll(tmp_path / "words.conll")
    convert_tagging(TaggingConversion(
        raw, inputs["vocab"], tmp_path / "conll", TaggingLayout("conll"), max_seq_length=32, dataset_format="numpy"
    ))  # fmt: skip
    main(flags({
        "do_train": "true", "train_data_file_path": tmp_path / "conll", "epoch_num": 1, "max_seq_length": 32,
        "load_pretrain_checkpoint_path": inputs["tiny"], "save_finetune_checkpoint_path": tmp_path / "run",
    }))  # fmt: skip
    assert "unit: word\n" in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "wanted", "unit"),
    [
        ((1, 1, 1, 3, 1), None, "character"),  # Chinese with a number in it
        ((4, 1, 3, 9), None, "word"),
        ((4, 1, 3, 9), "character", "character"),
    ],
)
def test_the_unit_of_given_tokens_is_the_usual_one(words, wanted, unit):
    ends = np.cumsum(words).astype(np.int32)
    tokens = {
        "word_id": np.array([-1, *range(len(words)), -1], np.int32),
        "offset_start": np.array([-1, *(ends - words), -1], np.int32),
        "offset_end": np.array([-1, *ends, -1], np.int32),
    }
    features = SimpleNamespace(info={"unit": "given"}, tokens=tokens)
    assert unit_of(features, "x", wanted) == unit


def test_another_scheme(inputs, tmp_path, capsys):
    scores = training(inputs, tmp_path, capsys, scheme="BMES", assessment_method="mf1", epoch_num=1)
    assert scores == {"token_macro_f1": json.loads((tmp_path / "eval.json").read_text())["token_macro_f1"]}
    assert len(read_checkpoint(tmp_path / "best").labels) == 41


def test_clue_benchmark_predicts_with_positions_and_scores(inputs, trained, tmp_path, capsys):
    settings = {
        "do_eval": "true", "load_finetune_checkpoint_path": trained, "max_seq_length": 32, "unit": "word",
        "use_crf": "true", "assessment_method": "clue_benchmark", "save_finetune_checkpoint_path": tmp_path,
    }  # fmt: skip
    settings["load_finetune_checkpoint_path"] = trained / "best"
    printed = run(capsys, **settings, eval_data_file_path=inputs["raw"])
    score_cluener([str(inputs["raw"]), str(tmp_path / "ner_predict.json")])
    scored = json.loads(capsys.readouterr().out)
    assert printed == {"entity_text_f1": scored["entity_text_f1"]}
    wanted = json.loads((trained / "eval.json").read_text())
    assert scored["f1"] == pytest.approx(wanted["f1"], abs=1e-12)
    run(None, **settings, eval_data_file_path=inputs["bare"])
    lines = [json.loads(line) for line in (tmp_path / "ner_predict.json").read_text().splitlines()]
    assert [line["text"] for line in lines] == [line["text"] for line in sentences()]
    assert "f1" not in json.loads((tmp_path / "eval.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_data_file_path": ""}, "--eval_data_file_path is needed"),
        ({"num_class": 4}, "has 21 labels, --num_class says 4"),
        ({"unit": "character"}, "give --unit word"),
        ({"label2id_file_path": "x.json"}, "names its labels itself"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(inputs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        training(inputs, tmp_path, **changes)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("kind", ["features", "records", "sentences"])
def test_tags_of_weights_from_elsewhere(inputs, tmp_path, kind):
    """Spelled B_name, or not named at all, so that a file does; each kind of data."""
    tags = tag_names(CLUENER_TYPES, "BIO")
    features = load_features(inputs["BIO"])
    (tmp_path / "tags.txt").write_text("\n".join(tag.replace("-", "_") for tag in tags))
    data = {"eval_data_file_path": {
        "features": inputs["BIO"],
        "records": write_foreign(tmp_path / "dev.tfrecord", features, {"tag_id": features.tokens["tag_id"]}),
        "sentences": inputs["raw"],
    }[kind]}  # fmt: skip
    data |= {"assessment_method": "clue_benchmark"} if kind == "sentences" else {}
    found = []
    names = {
        "ours": tags,
        "underscored": [tag.replace("-", "_") for tag in tags],
        "numbered": [f"LABEL_{index}" for index in range(len(tags))],  # what transformers calls what has no name
    }
    for spelling, labels in names.items():
        weights, folder = tmp_path / f"{spelling} weights", tmp_path / spelling
        write_weights(weights, inputs["vocab"], groups=("heads.tagger",), labels=labels)
        needed = spelling == "numbered" and kind != "features"
        run(None, do_eval="true", load_finetune_checkpoint_path=weights, max_seq_length=32, **data,
            **({"label_file_path": tmp_path / "tags.txt"} if needed else {}),
            save_finetune_checkpoint_path=folder)  # fmt: skip
        found.append(predictions(folder))
    assert found[0] == found[1] == found[2] and any(entry["entities"] for entry in found[0])


def test_tags_that_nobody_names_need_a_file(inputs, tmp_path):
    features = load_features(inputs["BIO"])
    foreign = write_foreign(tmp_path / "train.tfrecord", features, {"tag_id": features.tokens["tag_id"]})
    for more in ({}, {"num_class": 21}):
        with pytest.raises(UserError, match=r"does not name its labels; give --label_file_path$"):
            training(inputs, tmp_path / "run", train_data_file_path=foreign, **more)


def test_a_crf_is_not_left_out_by_mistake(inputs, trained, tmp_path):
    with pytest.raises(UserError, match=r"has heads\.crf\.transitions; give --use_crf true"):
        run(
            None, do_eval="true", load_finetune_checkpoint_path=trained / "best", eval_data_file_path=inputs["BIO"],
            save_finetune_checkpoint_path=tmp_path, max_seq_length=32, unit="word",
        )  # fmt: skip


def test_every_flag_of_the_original_readme_is_there():
    names = {name for name, _ in leaves(TaggingConfig)}
    assert names >= TaggingTask.free_to_change
    assert names >= {
        "device_target", "do_train", "do_eval", "assessment_method", "use_crf", "device_id", "epoch_num", "num_class",
        "train_data_shuffle", "eval_data_shuffle", "vocab_file_path", "save_finetune_checkpoint_path",
        "load_pretrain_checkpoint_path", "load_finetune_checkpoint_path", "train_data_file_path", "eval_data_file_path",
        "schema_file_path",
    }  # fmt: skip
    assert parse(["--label2id_file_path", "x.json"]).label_file_path == "x.json"
    assert parse(["--assessment_method", "BF1"]).assessment_method == "bf1"
