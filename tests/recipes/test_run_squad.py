"""The SQuAD command on a tiny model: every format of weights and features, what each flag does, what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_tools.convert import SquadConversion, convert_squad
from data_tools.features.span import SpanOptions
from models.bert.run_squad import main, parse
from models.common.config import leaves
from models.common.errors import UserError
from models.common.files import locked_folder, sha256_of
from models.common.finetune.span import SpanConfig, SpanTask
from models.common.train.metrics_log import read_metrics
from tests.commands import flags
from tests.tiny import PARAGRAPHS, TINY, assert_heads_are_named, write_pretrained, write_squad, write_weights

OPTIONS = SpanOptions(max_seq_length=64, doc_stride=16)
QUESTIONS = sum(len(questions) for questions in PARAGRAPHS.values())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("squad")
    data = write_squad(folder / "tiny.json")
    vocab = minilm_dir / "vocab.txt"
    for name, training in (("train", True), ("dev", False)):
        for kind in ("numpy", "mindrecord", "tfrecord"):
            convert_squad(
                SquadConversion(data, vocab, folder / kind / name, training, span=OPTIONS, dataset_format=kind)
            )
    write_weights(folder / "weights", vocab)
    write_weights(folder / "fine_tuned", vocab, groups=("heads.span",))
    return {"json": data, "folder": folder, "vocab": vocab}


def run(**settings: object) -> None:
    main(flags(settings))


def training(inputs, run_folder: Path, **changes: object) -> dict:
    settings = {
        "do_train": "true", "epoch_num": 1, "train_batch_size": 4, "max_seq_length": 128, "doc_stride": 16,
        "train_data_file_path": inputs["folder"] / "numpy" / "train", "save_checkpoint_num": 1,
        "load_pretrain_checkpoint_path": inputs["folder"] / "weights", "save_finetune_checkpoint_path": run_folder,
        "optimizer.warmup_ratio": 0, **changes,
    }  # fmt: skip
    run(**settings)
    return load_file(run_folder / "last" / "model.safetensors")


def evaluation(inputs, run_folder: Path, weights: Path, **changes: object) -> dict:
    run(**{
        "do_eval": "true", "eval_json_path": inputs["json"], "load_finetune_checkpoint_path": weights,
        "save_finetune_checkpoint_path": run_folder, "max_seq_length": 64, "doc_stride": 16, **changes,
    })  # fmt: skip
    return json.loads((run_folder / "nbest_predictions.json").read_text())


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory) -> dict:
    return training(inputs, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("kind", ["mindrecord", "tfrecord"])
def test_every_format_of_features_trains_alike(inputs, trained, tmp_path, kind):
    again = training(inputs, tmp_path, train_data_file_path=inputs["folder"] / kind / "train")
    for name, value in trained.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"train_data_shuffle": "false"},
        {"train_batch_size": 8},
        {"packing": "false"},
        {"max_samples_per_row": 1},
        {"hidden_dropout_prob": 0.0},
        {"attention_probs_dropout_prob": 0.0},
        {"optimizer.name": "lamb"},
        {"optimizer.name": "adam_weight_decay"},
        {"optimizer.name": "momentum"},
        {"optimizer.learning_rate": 1e-3},
        {"optimizer.end_learning_rate": 4e-5},
        {"optimizer.power": 3},
        {"optimizer.warmup_ratio": 0.5},
        {"optimizer.weight_decay": 0.5},
        {"optimizer.beta1": 0.5},
        {"optimizer.beta2": 0.5},
        {"optimizer.eps": 0.1},
        {"optimizer.max_grad_norm": 1e-4},
        {"optimizer.clip": "tensor"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_setting_of_training_changes_the_weights(inputs, trained, tmp_path, changes):
    again = training(inputs, tmp_path, **changes)
    assert any(not np.array_equal(again[name], value) for name, value in trained.items())


def test_what_a_resumed_run_may_change_changes_no_weight(inputs, trained, tmp_path):
    free = {
        "do_eval": "true", "eval_json_path": inputs["json"], "eval_steps": 1, "eval_batch_size": 3, "doc_stride": 8,
        "eval_data_shuffle": "true", "n_best_size": 2, "max_answer_length": 3, "max_query_length": 20,
        "save_checkpoint_steps": 1, "save_checkpoint_num": 3, "vocab_file_path": inputs["vocab"], "stride_is": "step",
    }  # fmt: skip
    assert set(free) <= SpanTask.free_to_change
    again = training(inputs, tmp_path, **free)
    for name, value in trained.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_loss_scaling_changes_nothing_but_rounding(inputs, trained, tmp_path):
    scaling = {"enable": "true", "initial": 64, "factor": 2, "window": 1}
    again = training(inputs, tmp_path, **{f"loss_scale.{name}": value for name, value in scaling.items()})
    for name, value in trained.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1.2e-4, err_msg=name)  # one step of Adam: its rate
    scales = [entry["loss_scale"] for entry in read_metrics(tmp_path / "metrics.jsonl")]
    assert scales == [64.0 * 2**step for step in range(len(scales))]


def test_overflow_after_overflow_stops_training(inputs, tmp_path):
    scaling = {"loss_scale.enable": "true", "loss_scale.patience": 2}
    with pytest.raises(
        UserError, match=r"step \d: loss nan.*, overflow 2 in a row, with loss scale 32768; .* diverged"
    ):
        training(inputs, tmp_path, epoch_num=4, **{"optimizer.learning_rate": 1e30}, **scaling)
    assert [entry["overflows"] for entry in read_metrics(tmp_path / "metrics.jsonl")][-1] == 1


def test_the_originals_schedule_jumps_where_the_warm_up_ends(inputs, tmp_path):
    legacy = {"optimizer.schedule": "legacy", "optimizer.warmup_ratio": 0.5, "optimizer.learning_rate": 1e-4}
    training(inputs, tmp_path, epoch_num=2, **legacy)
    rates = [entry["learning_rate"] for entry in read_metrics(tmp_path / "metrics.jsonl")]
    middle = round(len(rates) / 2)
    assert rates[:middle] == pytest.approx([1e-4 * step / middle for step in range(middle)])
    assert rates[middle:] == pytest.approx([1e-4 * (1 - step / len(rates)) for step in range(middle, len(rates))])


def test_weights_of_pretraining_go_straight_in(inputs, tmp_path, capsys):
    pretrained = write_pretrained(tmp_path / "bert", inputs["vocab"])
    training(inputs, tmp_path / "run", load_pretrain_checkpoint_path=pretrained)
    assert_heads_are_named(capsys.readouterr().out)


def test_the_run_folder_holds_what_the_readme_says(inputs, tmp_path):
    training(inputs, tmp_path, do_eval="true", eval_json_path=inputs["json"], epoch_num=2, save_checkpoint_steps=1,
             eval_steps=1, save_checkpoint_num=2)  # fmt: skip
    entries = read_metrics(tmp_path / "metrics.jsonl")
    steps = [entry for entry in entries if entry["group"] == "train"]
    scores = [entry["f1"] for entry in entries if entry["group"] == "eval"]
    assert len(scores) == len(steps)
    assert json.loads((tmp_path / "eval.json").read_text())["f1"] == max(scores)
    assert sum(entry["samples"] for entry in steps) == 2 * QUESTIONS
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tb").iterdir())
    assert set(json.loads((tmp_path / "predictions.json").read_text())) == {f"q{i}" for i in range(QUESTIONS)}
    resolved = parse(["--config_path", str(tmp_path / "config.yaml")])
    assert resolved.epoch_num == 2
    assert resolved.optimizer.warmup_ratio == 0.0


def test_evaluation_does_not_depend_on_how_the_windows_are_batched(inputs, tmp_path):
    weights = inputs["folder"] / "fine_tuned"
    expected = evaluation(inputs, tmp_path / "a", weights)
    for number, changes in enumerate([
        {"eval_data_shuffle": "true"}, {"packing": "false"}, {"eval_batch_size": 3}, {"max_seq_length": 150},
        {"eval_data_file_path": inputs["folder"] / "mindrecord" / "dev"},
        {"eval_data_file_path": inputs["folder"] / "tfrecord" / "dev"},
        {"vocab_file_path": inputs["vocab"]}, {"device_target": "CPU", "device_id": 0, "num_class": 2},
    ]):  # fmt: skip
        if "max_seq_length" in changes:
            changes["eval_data_file_path"] = inputs["folder"] / "numpy" / "dev"
        found = evaluation(inputs, tmp_path / str(number), weights, **changes)
        for question, entries in expected.items():
            assert [entry["text"] for entry in found[question]] == [entry["text"] for entry in entries]


def test_settings_of_decoding_and_of_windows(inputs, tmp_path):
    weights = inputs["folder"] / "fine_tuned"
    few = evaluation(inputs, tmp_path / "few", weights, n_best_size=2, max_answer_length=1)
    assert all(len(entries) <= 2 and " " not in entries[0]["text"] for entries in few.values())
    evaluation(inputs, tmp_path / "windows", weights, max_seq_length=40, doc_stride=4, max_query_length=5)
    info = json.loads((tmp_path / "windows" / "eval_features" / "features.json").read_text())
    assert (info["max_seq_length"], info["doc_stride"], info["max_query_length"]) == (40, 4, 5)
    evaluation(inputs, tmp_path / "cased", weights, do_lower_case="false")
    info = json.loads((tmp_path / "cased" / "eval_features" / "features.json").read_text())
    assert info["tokenizer"]["lower_case"] is False


def test_a_fine_tuned_run_folder_and_its_ckpt_evaluate_alike(inputs, tmp_path):
    training(inputs, tmp_path / "run", do_eval="true", eval_json_path=inputs["json"])
    expected = json.loads((tmp_path / "run" / "nbest_predictions.json").read_text())
    for weights in ("best", "squad.ckpt", "."):
        assert evaluation(inputs, tmp_path / f"of {weights}", tmp_path / "run" / weights) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data_file_path": "absent"}, "absent: no such file or folder"),
        ({"load_pretrain_checkpoint_path": "absent"}, "absent"),
        ({"max_seq_length": 20}, "windows of 54 tokens; give --max_seq_length 54"),
        ({"num_class": 3}, "num_class must be one of 2"),
        ({"device_id": 1}, "there is only device 0"),
        ({"device_target": "Ascend"}, "finds no such device"),
        ({"device_target": "GPU"}, "finds no such device"),
        ({"epoch_num": 0, "train_batch_size": 0}, "epoch_num must be at least 1, got 0\n.*train_batch_size"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**31}, "seed must be at most"),
        ({"optimizer.learning_rate": -1}, "learning_rate must be at least 0"),
        ({"optimizer.learning_rate": "nan"}, "learning_rate must be a finite number"),
        ({"optimizer.warmup_ratio": 5}, "warmup_ratio must be at most 1"),
        ({"optimizer.beta1": 1.5}, "beta1 must be at most"),
        ({"loss_scale.factor": 0}, "factor must be at least 1"),
        ({"eval_steps": -1}, "eval_steps must be at least 0"),
        ({"schema_file_path": "schema.json"}, "leave the schema out"),
        ({"dataset_format": "mindrecord"}, "is numpy, not mindrecord; leave --dataset_format out"),
        ({"load_finetune_checkpoint_path": "x"}, "for evaluation only"),
        ({"eval_data_file_path": "x"}, "needs --eval_json_path"),
        ({"do_train": "false"}, "nothing to do"),
        ({"do_eval": "true"}, "--eval_json_path is needed"),
        ({"do_train": "false", "do_eval": "true", "eval_json_path": "x"}, "--load_finetune_checkpoint_path is needed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused(inputs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        training(inputs, tmp_path, **changes)


def test_features_made_for_something_else_are_refused(inputs, tmp_path):
    with pytest.raises(UserError, match="made for evaluation"):
        training(inputs, tmp_path, train_data_file_path=inputs["folder"] / "numpy" / "dev")
    weights = inputs["folder"] / "fine_tuned"
    with pytest.raises(UserError, match="not made for evaluation"):
        evaluation(inputs, tmp_path, weights, eval_data_file_path=inputs["folder"] / "numpy" / "train")
    other = tmp_path / "other.json"
    other.write_text(inputs["json"].read_text() + " ")
    with pytest.raises(UserError, match="made from another file"):
        evaluation(inputs, tmp_path, weights, eval_data_file_path=inputs["folder"] / "numpy" / "dev",
                   eval_json_path=other)  # fmt: skip


def test_a_finished_run_is_scored_on_what_it_is_given_next(inputs, tmp_path):
    run_folder = tmp_path / "run"
    training(inputs, run_folder)
    assert not (run_folder / "eval.json").exists()
    training(inputs, run_folder, do_eval="true", eval_json_path=inputs["json"])
    first = json.loads((run_folder / "eval.json").read_text())
    data = json.loads(inputs["json"].read_text())
    del data["data"][0]["paragraphs"][0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    training(inputs, run_folder, do_eval="true", eval_json_path=other)
    second = json.loads((run_folder / "eval.json").read_text())
    assert second["questions"] < first["questions"] == QUESTIONS
    evaluation(inputs, tmp_path / "alone", run_folder / "last", eval_json_path=other, max_seq_length=128)
    alone = json.loads((tmp_path / "alone" / "eval.json").read_text())
    assert [second[name] for name in ("f1", "exact_match")] == [alone[name] for name in ("f1", "exact_match")]


def remade(inputs, folder: Path, training: bool, vocab: Path | None = None, **changes: object) -> Path:
    options = {"max_seq_length": 64, "doc_stride": 16, **changes}
    lower_case = options.pop("do_lower_case", True)
    convert_squad(SquadConversion(
        inputs["json"], vocab or inputs["vocab"], folder, training, do_lower_case=lower_case,
        span=SpanOptions(**options), dataset_format="numpy",
    ))  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("made_with", "message"),
    [
        ({"doc_stride": 8}, "doc_stride 8, not 16; give --doc_stride 8"),
        ({"stride_is": "step"}, "give --stride_is step"),
        ({"max_query_length": 5}, "give --max_query_length 5"),
        ({"do_lower_case": False}, "give --do_lower_case false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_evaluation_features_must_be_made_as_the_settings_say(inputs, tmp_path, made_with, message):
    features = remade(inputs, tmp_path / "features", False, **made_with)
    weights = inputs["folder"] / "fine_tuned"
    with pytest.raises(UserError, match=message):
        evaluation(inputs, tmp_path / "run", weights, eval_data_file_path=features)
    evaluation(inputs, tmp_path / "run", weights, eval_data_file_path=features, **made_with)


def test_features_of_another_model_are_refused(inputs, tmp_path):
    words = inputs["vocab"].read_text(encoding="utf-8").splitlines()
    other, longer = tmp_path / "other.txt", tmp_path / "longer.txt"
    other.write_text("\n".join([*words[:-2], words[-1], words[-2]]), encoding="utf-8")
    # The word of the data comes last, beyond the model's table.
    longer.write_text("\n".join(["[unused9999]" if word == "bridge" else word for word in words] + ["bridge"]))
    with pytest.raises(UserError, match="another vocabulary than"):
        training(inputs, tmp_path / "run", train_data_file_path=remade(inputs, tmp_path / "a", True, other))
    with pytest.raises(UserError, match="a token id beyond the model's 30522"):
        training(inputs, tmp_path / "run", train_data_file_path=remade(inputs, tmp_path / "b", True, longer))
    long = remade(inputs, tmp_path / "c", True, max_seq_length=80)
    small = write_weights(tmp_path / "small", inputs["vocab"], dataclasses.replace(TINY, max_position_embeddings=32))
    with pytest.raises(UserError, match="the model has 32 positions"):
        training(inputs, tmp_path / "run", train_data_file_path=long, load_pretrain_checkpoint_path=small)


def test_labels_outside_of_a_window_are_refused(inputs, tmp_path):
    features = remade(inputs, tmp_path / "features", True)
    [ends] = features.glob("*end_position*.npy")
    values = np.load(ends)
    values[3] = 500
    np.save(ends, values)
    sidecar = features / "features.json"
    info = json.loads(sidecar.read_text())
    for file in info["shards"][0]["files"]:
        file["sha256"] = sha256_of(features / file["name"])
    sidecar.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"sample 3: answer tokens \d+\.\.500 of"):
        training(inputs, tmp_path / "run", train_data_file_path=features)


def test_a_dev_file_that_cannot_be_scored_is_told_before_training(inputs, tmp_path):
    data = json.loads(inputs["json"].read_text())
    data["data"][0]["paragraphs"][0]["qas"][0]["answers"] = []
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(data))
    with pytest.raises(UserError, match="q0"):
        training(inputs, tmp_path / "run", do_eval="true", eval_json_path=broken)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_that_cannot_begin_leaves_no_folder(inputs, tmp_path):
    with pytest.raises(UserError, match="nowhere: weights not found"):
        training(inputs, tmp_path / "run", load_pretrain_checkpoint_path=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_in_a_run_folder(inputs, tmp_path):
    with locked_folder(tmp_path), pytest.raises(UserError, match="another process is working there"):
        training(inputs, tmp_path)
    left_over = tmp_path / "best" / ".model.1.partial.safetensors"
    left_over.parent.mkdir()
    left_over.write_bytes(b"half")
    training(inputs, tmp_path)
    assert not left_over.exists()


def test_weights_without_a_span_head_cannot_be_evaluated(inputs, tmp_path):
    with pytest.raises(UserError, match=r"heads\.span"):
        evaluation(inputs, tmp_path, inputs["folder"] / "weights")


def test_every_setting_may_change_or_identifies_a_run():
    assert {name for name, _ in leaves(SpanConfig)} >= SpanTask.free_to_change
