"""`benchmarks.masking_levels` at the smallest size: what it compares, that it goes on, and what it refuses."""

import json
from pathlib import Path

import pytest

from benchmarks import masking_levels
from data_tools.feature_store import load_features, read_sidecar
from models.common.errors import UserError
from tests.pretrain_corpus import SPECIAL
from tests.pretraining import curve, write_network

PARTS = ("我们在野生动物园玩了一天", "小明硕士毕业于中国科学院计算所", "南京市长江大桥建成通车", "今天的天气非常不错")
STEPS = 3


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("masking")
    documents = [
        "\n".join(f"{PARTS[(number + at) % 4]}。{PARTS[number % 4]}。" for at in range(4)) for number in range(60)
    ]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    characters = sorted({*"".join(PARTS), *"。好差"})
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *characters]), encoding="utf-8")
    for name, count in (("train", 32), ("dev", 8)):
        rows = [f"{number % 2}\t{'差好'[number % 2]}。{PARTS[number % 4]}" for number in range(count)]
        (folder / f"{name}.tsv").write_text("\n".join(["label\ttext_a", *rows]) + "\n", encoding="utf-8")
    network = write_network(folder / "network.json", hidden_act="relu")
    flags = {
        "data_file": folder / "text.txt", "vocab_file": folder / "vocab.txt", "task_dir": folder, "network": network,
        "output_dir": folder / "out", "train_steps": STEPS, "train_batch_size": 8, "max_seq_length": 64,
        "dupe_factor": 1, "task_left_out": "0.5", "task_epochs": 1,
    }  # fmt: skip
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def result(command) -> dict:
    masking_levels.main(command)
    folder = Path(command[command.index("--output_dir") + 1])
    return json.loads((folder / "result.json").read_text(encoding="utf-8")) | {"folder": folder}


def test_each_level_is_trained_and_scored_under_both(result):
    rows, folder = result["rows"], result["folder"]
    assert [(row["level"], row["seed"], row["steps"]) for row in rows] == [("basic", 1, STEPS), ("phrase", 1, STEPS)]
    for row in rows:
        assert set(row["scores"]) == {"basic", "phrase"} and 0 <= row["task_accuracy"] <= 1
        # After three steps of a tiny network the loss is nearly that of a guess.
        assert all(2 < scores["mlm_loss"] < 6 for scores in row["scores"].values())
        assert len(curve(folder / f"{row['level']}-1/pretrain")) == STEPS
    assert rows[0]["scores"] != rows[1]["scores"]
    for level in ("basic", "phrase"):
        assert read_sidecar(folder / f"features/train-{level}")["masking"] == {level: 1.0}
    train, dev = (
        load_features(folder / f"features/{part}-basic").info["counts"]["examples"] for part in ("train", "dev")
    )
    assert (train, dev) == (54, 6)
    assert len(load_features(folder / "features/task-train")) == 16


def test_a_finished_run_does_nothing_anew_and_writes_its_table(command, result, tmp_path, monkeypatch):
    monkeypatch.setattr(masking_levels, "call", lambda *_, **__: pytest.fail("done already"))
    (tmp_path / "x.md").write_text("<!-- results -->\n<!-- end of results -->\n")
    masking_levels.main([*command, "--write", str(tmp_path / "x.md")])
    lines = [line for line in (tmp_path / "x.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 4 and all(line.count("|") == len(masking_levels.COLUMNS) + 1 for line in lines)
    loss = result["rows"][1]["scores"]["basic"]["mlm_loss"]
    assert [cell.strip() for cell in lines[4].strip("|").split("|")][:5] == ["phrase", "1", "3", "basic", f"{loss:.3f}"]


def test_other_settings_and_sizes_are_refused(command, result, tmp_path):
    with pytest.raises(UserError, match="was made with other learning_rate; choose another --output_dir"):
        masking_levels.main([*command, "--learning_rate", "1"])
    with pytest.raises(UserError, match="the network has positions for 64"):
        masking_levels.main([*command, "--max_seq_length", "128", "--output_dir", str(tmp_path / "other")])
    with pytest.raises(UserError, match=r"unequal steps, {'basic': 3, 'phrase': 2}"):
        masking_levels.check_steps([result["rows"][0], result["rows"][1] | {"steps": 2}])
