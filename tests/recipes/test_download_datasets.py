"""scripts/download_datasets.sh: Baidu's archive and a dump of Wikipedia, from a server on this machine."""

import bz2
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.web_server import serving

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/download_datasets.sh"
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <base>https://zh.wikipedia.org/wiki/X</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="10" case="first-letter">Template</namespace>
    </namespaces>
  </siteinfo>
  <page>
    <title>数学</title>
    <ns>0</ns>
    <id>13</id>
    <revision>
      <id>1</id>
      <text bytes="66" xml:space="preserve">'''数学'''是研究[[数量]]的学科。
数学家从事研究。</text>
    </revision>
  </page>
</mediawiki>
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=120)


def packed(files: dict[str, str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return target.getvalue()


def test_the_task_data_come_and_stay(tmp_path):
    notes = {"._task_data": "of macOS", "task_data/xnli/._dev.tsv": "of macOS"}
    content = packed({"task_data/xnli/dev.tsv": "text_a\n", "./task_data/cmrc2018/dev.json": "{}"} | notes)
    with serving(content) as server:
        for number in (1, 2):  # the original exits with 1 where data/ is there already
            done = run(tmp_path, "finetune", "--url", server.url)
            assert done.returncode == 0, done.stderr
            assert ("already unpacked" in done.stdout) == (number == 2)
        (tmp_path / "data/task_data_zh.tgz").unlink()
        assert run(tmp_path, "finetune", "--url", server.url).returncode == 0
        assert len(server.asked) == 1
    assert (tmp_path / "data/task_data/xnli/dev.tsv").read_text() == "text_a\n"
    assert (tmp_path / "data/task_data/cmrc2018/dev.json").read_text() == "{}"
    assert not list((tmp_path / "data").rglob("._*"))


def test_an_archive_of_another_layout_is_refused(tmp_path):
    with serving(packed({"task_data/a": "a", "other/b": "b"})) as server:
        done = run(tmp_path, "finetune", "--url", server.url)
    assert done.returncode == 2 and "'other/b' lies beside task_data/, the folder that all should be in" in done.stderr
    assert not (tmp_path / "data/task_data").exists()


def test_a_dump_becomes_text(tmp_path):
    with serving(bz2.compress(DUMP.encode())) as server:
        done = run(tmp_path, "pretrain", "--url", server.url)
    assert done.returncode == 0, done.stderr
    text = "".join(path.read_text() for path in (tmp_path / "data/extracted").rglob("wiki_*"))
    assert '<doc id="13"' in text and "数学是研究数量的学科。\n数学家从事研究。" in text


def test_a_dump_without_pages_is_refused(tmp_path):
    with serving(bz2.compress(DUMP.replace("<ns>0<", "<ns>1<").encode())) as server:
        done = run(tmp_path, "pretrain", "--url", server.url)
    assert done.returncode == 2 and "WikiExtractor found no pages in it (exit code 0)" in done.stderr
    assert not (tmp_path / "data/extracted").exists()


@pytest.mark.parametrize(("kind", "shown"), [
    ("finetune", "https://ernie.bj.bcebos.com/task_data_zh.tgz -> data/task_data_zh.tgz -> data/task_data"),
    ("pretrain", "-> data/zhwiki-latest-pages-articles.xml.bz2 -> data/extracted"),
])  # fmt: skip
def test_print_does_nothing(kind, shown, tmp_path):
    done = run(tmp_path, kind, "--print")
    assert done.returncode == 0 and shown in done.stdout and not any(tmp_path.iterdir())


def test_what_is_to_be_downloaded_must_be_said(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and "data_type" in done.stderr and not any(tmp_path.iterdir())
