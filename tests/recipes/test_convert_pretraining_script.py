"""scripts/convert_pretraining_datasets.sh: the original's settings, what the input needs, and flags that win."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.pretrain_corpus import SPECIAL

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/convert_pretraining_datasets.sh"
TEXT = "漢字轉換很有趣。\n他來到了網易大廈。\n\n憂鬱的臺灣烏龜。\n小明畢業於中國科學院計算所。\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "wiki").mkdir()
    (folder / "wiki/wiki_00").write_text(
        "".join(f'<doc id="{at}" url="x">\n{part}\n</doc>\n' for at, part in enumerate(10 * TEXT.split("\n\n"))),
        encoding="utf-8",
    )
    vocab = folder / "pretrained_models/ernie_1.0_mindspore/vocab.txt"
    vocab.parent.mkdir(parents=True)
    characters = sorted(set(TEXT + "汉转换趣来网厦忧郁台湾乌龟毕业于国学计") - {"\n"})
    vocab.write_text("\n".join([*SPECIAL, *characters]), encoding="utf-8")
    (folder / "other.txt").write_text(vocab.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


def sidecar(done: subprocess.CompletedProcess, folder: Path) -> dict:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "features.json").read_text(encoding="utf-8"))


def test_text_becomes_what_the_originals_settings_say(folder):
    info = sidecar(run(folder, "wiki", "out"), folder / "out")
    expected = {
        "max_seq_length": 512, "max_predictions_per_seq": 77, "dupe_factor": 10, "random_seed": 1, "opencc": "t2s",
        "masking": {"phrase": 1.0}, "dataset_format": "mindrecord", "column_names": "ernie", "masked_lm_prob": 0.15,
    }  # fmt: skip
    assert {name: info[name] for name in expected} == expected
    assert info["word_segmenter"].startswith("jieba") and len(info["shards"]) == 10
    assert "features" in (folder / "convert_pretraining_log.txt").read_text(encoding="utf-8")


def test_the_way_by_baidus_files_and_the_ports_way(folder):
    """Each kind of data gets only the flags that mean something to it; the vocabulary may be named."""
    done = run(folder, "wiki", "lines", "other.txt", "--dataset_format", "baidu", "--shards", "2", "--dupe_factor", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = run(folder, "lines/filelist", "from_list", "--input_format", "baidu_filelist", "--shards", "1")
    assert sidecar(listed, folder / "from_list")["masking"] == "as the list says"
    lines = run(folder, "lines/pretrain-00000-of-00002.gz", "from_lines", "--input_format", "baidu", "--shards", "1",
                "--dataset_format", "numpy", "--max_seq_length", "511")  # fmt: skip
    info = sidecar(lines, folder / "from_lines")
    assert (info["masking"], info["max_seq_length"]) == ({"phrase": 1.0}, 511)
    old = run(folder, "wiki", "old", "--legacy", "true", "--shards", "1")
    info = sidecar(old, folder / "old")
    assert info["legacy"].startswith("masks") and info["max_predictions_per_seq"] == 20


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "DATASET_PATH and OUTPUT_PATH are needed"),
    (("wiki",), "DATASET_PATH and OUTPUT_PATH are needed"),
    (("wiki", "--shards", "1"), "DATASET_PATH and OUTPUT_PATH come before --shards"),
    (("none", "none_out"), "none: corpus not found"),
    (("wiki", "none_out", "none.txt"), "none.txt: file not found"),
])  # fmt: skip
def test_mistakes_are_told(folder, arguments, message):
    done = run(folder, *arguments)
    assert done.returncode == 2 and message in done.stdout + done.stderr
    assert not (folder / "none_out").exists()
