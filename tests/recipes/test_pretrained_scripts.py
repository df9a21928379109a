"""The original README's two commands in a row: download an archive of Baidu's, and carry it over to MindSpore."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from models.common.weights.reading import read_checkpoint
from tests.paddle_weights import write_archive
from tests.web_server import serving
from tests.weights_data import assert_same

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def script(name: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / f"{name}_pretrained_models.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.mark.parametrize("top", ["", "ernie/"])
def test_download_and_migrate_in_a_row(tmp_path, paddle, top):
    _, ours = write_archive(tmp_path / "made", paddle)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in sorted((tmp_path / "made").iterdir()):
            archive.add(path, f"{top}{path.name}")
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    with serving(packed.getvalue()) as server:
        server.breaks = [1000]
        done = script("download", tmp_path, "--url", server.url)
        assert done.returncode == 0, done.stderr
        assert "its publisher gives none" in done.stdout and f"sha256 {sha256}, compared with nothing" in done.stdout
        again = script("download", tmp_path, "--url", server.url, "--sha256", sha256)
        assert again.returncode == 0 and "already unpacked" in again.stdout
        assert len(server.asked) == 2
    done = script("migrate", tmp_path)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "pretrained_models/ernie_1.0_mindspore"
    held = ms.load_checkpoint(str(written / "model.ckpt"))
    assert_same({name: parameter.asnumpy() for name, parameter in held.items()}, ours)
    assert (written / "vocab.txt").read_bytes() == (tmp_path / "made/vocab.txt").read_bytes()
    done = script("migrate", tmp_path, "--dir", written, "--from", "mindspore", "--to", "hf", "--output", "hf",
                  "--dtype", "float16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "hf", "hf").tensors["pooler.bias"].dtype == np.float16


def test_a_wrong_archive_is_refused(tmp_path):
    with serving(b"no archive") as server:
        done = script("download", tmp_path, "--url", server.url, "--sha256", "0" * 64)
        assert done.returncode == 2 and "another sha256" in done.stderr
        done = script("download", tmp_path, "--url", server.url)
        assert done.returncode == 2 and "not a whole tar archive" in done.stderr
        done = script("download", tmp_path, "cased_L-24_H-1024_A-16", "--url", server.url)
        assert done.returncode == 2 and "not 5405c050e64fee4ffec17ee50f079b64" in done.stderr
    assert "Traceback" not in done.stderr


def test_print_does_nothing(tmp_path):
    done = script("download", tmp_path, "--print", "--dir", "there")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "https://baidu-nlp.bj.bcebos.com/ERNIE_stable-1.0.1.tar.gz -> there/ERNIE_stable-1.0.1."
    )
    done = script("migrate", tmp_path, "--print")
    words = done.stdout.split()
    assert words[1:] == ["-m", "models.ernie.migrate", "--from", "fluid", "--to", "mindspore",
                         "pretrained_models/ernie_1.0", "pretrained_models/ernie_1.0_mindspore"]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    done = script("migrate", tmp_path)
    assert done.returncode == 2 and "run scripts/download_pretrained_models.sh" in done.stderr
