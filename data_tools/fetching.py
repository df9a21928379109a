"""Files from the web: resumed where a download broke off, and checked; archives unpacked without trust in them.

`fetch` leaves `NAME.sha256` beside the file (as `sha256sum -c` reads it): where nobody has published a checksum, the
first download is at least what every later one is compared with.
"""

import fcntl
import gzip
import http.client
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from models.common.errors import UserError, clip, shorten
from models.common.files import atomic_folder, digest_of, fsync_directory, read_text, sha256_of, write_text
from models.common.progress import Progress

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 2.0  # seconds before the next attempt
LARGEST_ARCHIVE = 32 << 30  # bytes unpacked
MOST_MEMBERS = 100_000
APPLE_DOUBLE = "._"  # beside each file and folder, where macOS has packed them: what its Finder knows of them
_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes of a tar's extended header: a name or a few attributes


class _Interrupted(Exception):
    """The connection ended early; what came is kept."""


def fetch(url: str, path: Path | str, sha256: str | None = None, md5: str | None = None) -> str:
    """Download `url` (http or https) to `path`, unless it is there already; returns the file's SHA-256.

    A part that an earlier run left is continued, if the server can and has the same file still. A file that does not
    fit `sha256` and `md5`, or without these the checksum that an earlier download recorded, is a `UserError`; one that
    has just come does not stay.
    """
    path = Path(path)
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: neither an http nor an https address")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        return _checked(path, path, url, sha256, md5)
    part, validator = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.validator")
    with part.open("ab") as file:
        _lock(file, part, path)
        _download(url, file, validator, resumable=bool(sha256 or md5))
        os.fsync(file.fileno())
        found = _checked(part, path, url, sha256, md5)
        part.replace(path)
    validator.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return found


def unpack(archive: Path | str, folder: Path | str, largest: int = LARGEST_ARCHIVE, top: str | None = None) -> None:
    """Unpack a tar archive, compressed or not, into a new `folder`, which appears whole or not at all.

    top: the one folder that all lies in, which is left away. macOS's notes on files (`._name`) stay behind. Only files
    and folders that lie inside: a member with an absolute path or `..`, a link or a device, two of one name, more than
    `largest` bytes in all, or a damaged archive is a `UserError`, and nothing of it stays.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already there and not an empty folder; remove it or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            atomic_folder(folder) as temporary,
            tarfile.open(archive, tarinfo=_Member) as members,
            Progress(f"unpacking {archive.name}", unit="B") as progress,
        ):
            _unpack(members, temporary, largest, top, progress)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise UserError(f"{archive}: not a whole tar archive ({clip(str(error))}); download it again") from None
    except UserError as error:
        raise UserError(f"{archive}: {error}; nothing was unpacked") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked to {folder} ({error.strerror or error})") from None


def _lock(file: BinaryIO, part: Path, path: Path) -> None:
    """Two processes must not write one part; the lock ends with the open file."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have completed it between our open and our lock.
        mine = os.path.samestat(os.fstat(file.fileno()), part.stat())
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:
        raise UserError(f"{path}: another process is downloading it; wait for that")


def _checked(part: Path, path: Path, url: str, sha256: str | None, md5: str | None) -> str:
    """The SHA-256 of a download, which becomes `path`; recorded beside it. What does not fit is removed."""
    record = path.with_name(f"{path.name}.sha256")
    found = sha256_of(part)
    recorded = read_text(record).split(" ")[0] if record.is_file() else None
    checks = [("sha256", sha256, found)]
    if md5 is not None:
        checks.append(("md5", md5, digest_of(part, "md5")))
    if sha256 is None and md5 is None:
        checks = [(f"sha256 than {record.name} says, which may be removed if it is out of date", recorded, found)]
    for name, wanted, have in checks:
        if wanted is not None and wanted.lower() != have:
            if part != path:
                part.unlink()
            raise UserError(
                f"{path}: {'this file' if part == path else f'what came from {url}, and was removed,'} has another "
                f"{name}: {have}, not {wanted}"
            )
    if recorded != found:
        write_text(record, f"{found}  {path.name}\n")
    return found


def _download(url: str, file: BinaryIO, validator: Path, resumable: bool) -> None:
    """Bring `file` to the whole content of `url`, in as many attempts as go forward."""
    failures = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            return _attempt(url, file, validator, resumable)
        except (_Interrupted, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise UserError(f"{url}: {error.code} {error.reason}") from None
            have = file.seek(0, os.SEEK_END)
            failures = 0 if have > before else failures + 1
            if failures >= ATTEMPTS:
                raise UserError(f"{url}: {error}; {have} bytes are there, run it again to go on") from None
            time.sleep(PAUSE)


def _attempt(url: str, file: BinaryIO, validator: Path, resumable: bool) -> None:
    have = file.seek(0, os.SEEK_END)
    known = read_text(validator).strip() if validator.is_file() else ""
    headers = {"User-Agent": "encoder-zoo"}
    if have and (known or resumable):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known} if known else {})
    try:
        opened = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        if _range(error.headers.get("Content-Range", ""))[1] == str(have):  # the part was whole
            return
        file.truncate(0)
        raise _Interrupted("the part is longer than the server's file") from None
    with opened as response:
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            begin, total = _range(response.headers.get("Content-Range", ""))
            if begin != str(have):
                raise _Interrupted(f"the server continues at byte {begin} and not at {have}")
        else:
            file.truncate(0)
            have, total = 0, response.headers.get("Content-Length")
            write_text(validator, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        total = int(total) if total and str(total).isdigit() else None
        with Progress(f"downloading {url.rsplit('/', 1)[-1]}", total, "B", have) as progress:
            while block := response.read(_BLOCK):
                file.write(block)
                have += len(block)
                progress.update(len(block))
        file.flush()
    if total is not None and have != total:
        raise _Interrupted(f"the connection ended after {have} of {total} bytes")


def _range(header: str) -> tuple[str, str]:
    """Begin and whole length of `bytes 100-199/200`; `*` for a begin of `bytes */200`."""
    span, _, total = header.removeprefix("bytes ").partition("/")
    return span.partition("-")[0], total


class _Member(tarfile.TarInfo):
    """A member whose extended headers are read only if they are short: tarfile would take any length into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (not self.isreg() and self.size > _LONGEST_HEADER):
            raise tarfile.ReadError(f"a member of {self.size} bytes")
        return super()._proc_member(archive)


def _unpack(members: tarfile.TarFile, folder: Path, largest: int, top: str | None, progress: Progress) -> None:
    room = largest
    for number, member in enumerate(members):
        room -= member.size
        if room < 0 or number >= MOST_MEMBERS:
            raise UserError(f"holds more than {largest} bytes or {MOST_MEMBERS} members")
        if PurePosixPath(member.name).name.startswith(APPLE_DOUBLE):
            continue
        target = folder / _inside(member, top)
        try:
            (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
            if member.isreg():
                with target.open("xb") as opened, members.extractfile(member) as content:
                    shutil.copyfileobj(content, opened, _BLOCK)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UserError(f"{shorten(member.name)} has the place of another member") from None
        progress.update(member.size)
    # Only at its end does a compressed stream tell whether its content is what was packed.
    while block := members.fileobj.read(_BLOCK):
        room -= len(block)
        if room < 0:
            raise UserError(f"is followed by more than {largest} bytes")


def _inside(member: tarfile.TarInfo, top: str | None) -> PurePosixPath:
    """The path of a member that is a file or a folder below the archive's root, or below its folder `top`.

    Anything else is a `UserError`.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UserError(f"{shorten(member.name)} lies outside of it")
    if not (member.isreg() or member.isdir()):
        raise UserError(f"{shorten(member.name)} is neither a file nor a folder")
    if top is None or not path.parts:
        return path
    if path.parts[0] != top:
        raise UserError(f"{shorten(member.name)} lies beside {top}/, the folder that all should be in")
    return path.relative_to(top)
