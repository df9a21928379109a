"""Downloads from a server on this machine that breaks off and changes; archives that want out of their folder."""

import fcntl
import hashlib
import io
import tarfile

import numpy as np
import pytest

from data_tools import fetching
from data_tools.fetching import fetch, unpack
from models.common.errors import UserError
from tests.web_server import serving

CONTENT = np.random.default_rng(1).bytes(300_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    with serving(CONTENT) as made:
        yield made


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256.upper(), "md5": MD5}])
def test_a_file_is_downloaded_once_and_its_checksum_recorded(tmp_path, server, known):
    path = tmp_path / "a/b/weights.bin"
    assert fetch(server.url, path, **known) == SHA256
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "a/b/weights.bin.sha256").read_text() == f"{SHA256}  weights.bin\n"
    assert fetch(server.url, path, **known) == SHA256 and len(server.asked) == 1
    assert names_in(path.parent) == ["weights.bin", "weights.bin.sha256"]


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, server):
    server.breaks = [100_000, 50_000, 0]
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.asked == [(None, None), ("bytes=100000-", '"one"'), *[("bytes=150000-", '"one"')] * 2]


def test_the_next_run_goes_on_where_the_last_one_gave_up(tmp_path, server):
    server.breaks = [70_000, *[0] * fetching.ATTEMPTS]
    with pytest.raises(UserError, match="70000 bytes are there, run it again to go on"):
        fetch(server.url, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    server.asked.clear()
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.asked == [("bytes=70000-", '"one"')]


@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"ranges": False}])
def test_a_part_is_not_continued_with_another_file(tmp_path, server, change):
    server.breaks = [70_000, *[0] * fetching.ATTEMPTS]
    with pytest.raises(UserError):
        fetch(server.url, tmp_path / "x")
    server.content = CONTENT[::-1]
    for name, value in change.items():
        setattr(server, name, value)
    fetch(server.url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT[::-1]


def test_without_a_sign_that_the_file_is_the_same_only_a_checksum_lets_it_go_on(tmp_path, server):
    server.etag = None
    for name, known, wanted in (("a", {}, (None, None)), ("b", {"sha256": SHA256}, ("bytes=9-", None))):
        server.breaks = [9]
        server.asked.clear()
        fetch(server.url, tmp_path / name, **known)
        assert server.asked[1] == wanted


def test_a_part_that_is_whole_or_too_long(tmp_path, server):
    (tmp_path / ".x.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "x", SHA256) == SHA256
    (tmp_path / ".y.part").write_bytes(CONTENT + b"more")
    assert fetch(server.url, tmp_path / "y", SHA256) == SHA256


def test_wrong_content_is_refused_and_does_not_stay(tmp_path, server):
    for known in ({"sha256": "0" * 64}, {"md5": "0" * 32}, {"sha256": SHA256, "md5": "0" * 32}):
        with pytest.raises(UserError, match=r"and was removed, has another (sha256|md5): \w+, not 0+$"):
            fetch(server.url, tmp_path / "x", **known)
        assert names_in(tmp_path) == [".x.validator"]


def test_what_an_earlier_download_recorded_is_compared_with(tmp_path, server):
    path = tmp_path / "x"
    fetch(server.url, path)
    path.unlink()
    server.content = CONTENT[:-1]
    with pytest.raises(UserError, match=r"and was removed, has another sha256 than x\.sha256 says"):
        fetch(server.url, path)
    changed = hashlib.sha256(CONTENT[:-1]).hexdigest()
    assert fetch(server.url, path, changed) == changed  # a checksum that is given counts more
    assert fetch(server.url, path) == changed
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="this file has another sha256"):
        fetch(server.url, path)
    assert path.read_bytes() == b"mine"


def test_addresses_that_lead_nowhere(tmp_path, server):
    with pytest.raises(UserError, match="404"):
        fetch(server.url.replace("weights.bin", "missing"), tmp_path / "x")
    assert len(server.asked) == 1
    for wrong in (f"file://{tmp_path}/x", "ftp://host/x", "x"):
        with pytest.raises(UserError, match="neither an http nor an https address"):
            fetch(wrong, tmp_path / "x")
    server.server_close()
    with pytest.raises(UserError, match="0 bytes are there"):
        fetch(server.url, tmp_path / "x")


def test_two_processes_do_not_write_one_file(tmp_path, server):
    with (tmp_path / ".x.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is downloading it"):
            fetch(server.url, tmp_path / "x")
    assert fetch(server.url, tmp_path / "x") == SHA256


# ---- archives


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def write_tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_unpacked(tmp_path, mode):
    archive = write_tar(
        tmp_path / "a.tar", member("./", type=tarfile.DIRTYPE), member("./params/a.b", b"one"), member("vocab.txt"),
        member("deep/er/x", CONTENT, mode=0o4777), member("n" * 90 + "/" + "m" * 90, b"long"), mode=mode,
    )  # fmt: skip
    unpack(archive, tmp_path / "to/folder")
    found = {str(path.relative_to(tmp_path / "to/folder")): path.read_bytes()
             for path in (tmp_path / "to/folder").rglob("*") if path.is_file()}  # fmt: skip
    assert found == {"params/a.b": b"one", "vocab.txt": b"", "deep/er/x": CONTENT, "n" * 90 + "/" + "m" * 90: b"long"}
    assert (tmp_path / "to/folder/deep/er/x").stat().st_mode & 0o7111 == 0
    with pytest.raises(UserError, match="already there and not an empty folder"):
        unpack(archive, tmp_path / "to/folder")


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([member("/absolute", b"x")], "'/absolute' lies outside of it"),
        ([member("../up", b"x")], r"'\.\./up' lies outside"),
        ([member("a/../../up", b"x")], "lies outside"),
        ([member("..", type=tarfile.DIRTYPE)], "lies outside"),
        ([member("link", type=tarfile.SYMTYPE, linkname="/etc")], "'link' is neither a file nor a folder"),
        ([member("link", type=tarfile.SYMTYPE, linkname="."), member("link/x", b"x")], "'link' is neither"),
        ([member("hard", type=tarfile.LNKTYPE, linkname="../up")], "'hard' is neither"),
        ([member("pipe", type=tarfile.FIFOTYPE)], "'pipe' is neither"),
        ([member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "'device' is neither"),
        ([member("a", b"1"), member("a", b"2")], "'a' has the place of another"),
        ([member("a", b"1"), member("a/b", b"2")], "'a/b' has the place of another"),
        ([member("a/b", b"1"), member("a", b"2")], "'a' has the place of another"),
        ([member("big", bytes(2000))], "holds more than 1000 bytes"),
        ([member(str(number), bytes(400)) for number in range(3)], "holds more than 1000 bytes"),
    ],
)
def test_hostile_members_are_refused_and_leave_nothing(tmp_path, members, complaint):
    (tmp_path / "in").mkdir()
    archive = write_tar(tmp_path / "in/a.tgz", member("first", b"x"), *members)
    with pytest.raises(UserError, match=complaint) as error:
        unpack(archive, tmp_path / "in/folder", largest=1000)
    assert str(archive) in str(error.value)
    assert names_in(tmp_path / "in") == ["a.tgz"] and names_in(tmp_path) == ["in"]


def test_an_extended_header_of_any_length_is_not_read_into_memory(tmp_path):
    info, content = member("x", bytes(8 << 20), type=tarfile.XHDTYPE)
    write_tar(tmp_path / "a.tgz", (info, content))
    with pytest.raises(UserError, match="a member of 8388608 bytes"):
        unpack(tmp_path / "a.tgz", tmp_path / "folder")


def test_damaged_archives(tmp_path):
    whole = write_tar(tmp_path / "whole.tgz", member("a", CONTENT), member("b", CONTENT[::-1])).read_bytes()
    generator = np.random.default_rng(2)
    damaged = [b"", b"text", whole[:100], whole[: len(whole) // 2], whole[:-20]]
    for _ in range(60):
        changed = np.frombuffer(whole, np.uint8).copy()
        changed[generator.integers(0, len(whole), 3)] ^= generator.integers(1, 256, 3).astype(np.uint8)
        damaged.append(changed.tobytes())
    refused = 0
    for content in damaged:
        (tmp_path / "x.tgz").write_bytes(content)
        try:
            unpack(tmp_path / "x.tgz", tmp_path / "folder")
            for file in (tmp_path / "folder").iterdir():
                file.unlink()
            (tmp_path / "folder").rmdir()
        except UserError as error:
            refused += 1
            assert len(str(error)) < 600
        assert names_in(tmp_path) == ["whole.tgz", "x.tgz"]
    assert refused > 40
