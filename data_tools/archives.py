"""What the commands that download a publisher's archive share: their flags, and the way from an address to a folder."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_tools.fetching import fetch
from models.common.errors import UserError


@dataclass(frozen=True)
class Archive:
    """Where an archive is, and the checksum that its publisher gives; None where nobody has given one."""

    url: str
    md5: str | None = None


def add_flags(parser: argparse.ArgumentParser, folder: Path) -> None:
    """The flags of such a command; folder: where it puts things."""
    parser.add_argument("--dir", type=Path, default=folder, help=f"folder for the archive and its content; {folder}")
    parser.add_argument("--url", help="another address of the same archive, such as a mirror's")
    parser.add_argument("--sha256", help="checksum that the archive must have")
    parser.add_argument("--print", action="store_true", help="say what would be done, and do nothing")


def bring(known: Archive, name: str, args: argparse.Namespace, unpack: Callable[[Path, Path], None]) -> None:
    """Download an archive to the folder of the flags, and unpack it there to `name`, unless it is there already."""
    archive, folder = args.dir / known.url.rsplit("/", 1)[-1], args.dir / name
    url, given = args.url or known.url, f"md5 {known.md5}" if known.md5 else None
    given = f"sha256 {args.sha256}" if args.sha256 else given
    print(f"{url} -> {archive} -> {folder}")
    print(f"checksum: {given}" if given else "checksum: its publisher gives none; the first download's is recorded")
    if args.print:
        return
    there = folder.is_dir() and any(folder.iterdir())
    if not there or archive.exists():
        found = fetch(url, archive, args.sha256, known.md5)
        compared = "" if given else ", compared with nothing but what earlier downloads recorded"
        print(f"{archive}: sha256 {found}{compared}")
    if there:
        print(f"{folder}: already unpacked")
        return
    try:
        unpack(archive, folder)
    except UserError as error:
        raise UserError(f"{error}; remove {archive} if it should be downloaded again") from None
    print(f"{folder}: unpacked")
