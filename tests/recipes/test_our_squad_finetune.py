"""The benchmark that fine-tunes with our command: the same settings as its peer, and a result the table takes."""

import dataclasses
import json

import pytest

from benchmarks import our_squad_finetune, peer_squad_finetune, table
from models.bert.config import RECIPES
from models.common.config import load_recipe, resolve
from models.common.errors import UserError
from models.common.files import read_json
from models.common.finetune.span import SpanConfig
from tests.tiny import PARAGRAPHS, TINY, write_squad, write_weights

QUESTIONS = sum(len(questions) for questions in PARAGRAPHS.values())


def test_both_have_the_same_settings():
    peer = vars(peer_squad_finetune.parse(["--output_dir", "x"]))
    ours = our_squad_finetune.parse(["--train_file", "a", "--dev_file", "b", "--output_dir", "x"])
    config = resolve(SpanConfig, [("recipe", load_recipe(RECIPES, ours.recipe, "run_squad"))])
    optimizer = config.optimizer
    assert {
        "epochs": config.epoch_num, "batch_size": config.train_batch_size, "learning_rate": optimizer.learning_rate,
        "max_seq_length": config.max_seq_length, "doc_stride": config.doc_stride, "clip": optimizer.max_grad_norm,
        "warmup_ratio": optimizer.warmup_ratio, "weight_decay": optimizer.weight_decay,
        "n_best_size": config.n_best_size, "max_answer_length": config.max_answer_length, "seed": ours.seed,
    }.items() <= peer.items()  # fmt: skip
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.eps) == ("adamw", 0.9, 0.999, 1e-8)
    assert (optimizer.end_learning_rate, optimizer.power) == (0.0, 1.0)


def test_a_run_and_its_row(tmp_path, minilm_dir, capsys):
    data = write_squad(tmp_path / "tiny.json")
    weights = write_weights(
        tmp_path / "weights", minilm_dir / "vocab.txt", dataclasses.replace(TINY, max_position_embeddings=384)
    )
    flags = ["--train_file", data, "--dev_file", data, "--weights", weights, "--output_dir", tmp_path / "out",
             "--recipe", "quickstart", "--epochs", "2", "--seed", "3", "--threads", "1"]  # fmt: skip
    our_squad_finetune.main(list(map(str, flags)))
    result = read_json(tmp_path / "out" / "result.json")
    assert result["train_windows"] == result["dev_windows"] == QUESTIONS
    assert result["steps"] == len(result["losses"]) >= 2
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2]
    assert result["best"]["f1"] == max(epoch["f1"] for epoch in result["epochs"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {name: result["epochs"][-1][name] for name in ("exact_match", "f1")}
    table.main([str(tmp_path / "out" / "result.json")])
    assert f"| MindSpore, ours | 3 | 2 | {QUESTIONS} / {QUESTIONS} |" in capsys.readouterr().out


def test_a_failure_of_the_command_is_one(tmp_path, minilm_dir):
    data = write_squad(tmp_path / "tiny.json")
    weights = write_weights(tmp_path / "weights", minilm_dir / "vocab.txt")
    flags = ["--train_file", data, "--dev_file", data, "--weights", weights, "--output_dir", tmp_path / "out"]
    with pytest.raises(UserError, match="failed with exit code 2"):
        our_squad_finetune.main([*map(str, flags), "--recipe", "absent"])
