"""Folders of numbered files that a program reads: replaced as a whole, and never those of someone else."""

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.common.errors import UserError


@contextlib.contextmanager
def replaced_folders(
    folders: Sequence[Path], pattern: str, flag: str, dropped: Sequence[Path] = ()
) -> Iterator[list[Path]]:
    """Yield an empty folder beside each of `folders`; they take their places when the block succeeds.

    dropped: folders that former runs may have left, which are removed then. After an error everything is as it was; a
    run that is killed while it ends leaves folders missing, never the files of two runs. Raises `UserError` that names
    `flag` when a folder holds a file whose name is not of the `pattern`.
    """
    old = [*folders, *dropped]
    for folder in old:
        _check_ours(folder, pattern, flag)
    staging = [folder.with_name(f".{folder.name}.partial") for folder in folders]
    try:
        for path in staging:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        yield staging
        for folder in old:
            if folder.exists():
                shutil.rmtree(folder)
        for path, folder in zip(staging, folders, strict=True):
            path.rename(folder)
    finally:
        for path in staging:
            shutil.rmtree(path, ignore_errors=True)


def _check_ours(folder: Path, pattern: str, flag: str) -> None:
    if not folder.exists():
        return
    foreign = [path for path in folder.iterdir() if not re.fullmatch(pattern, path.name)] if folder.is_dir() else []
    if foreign or not folder.is_dir():
        raise UserError(f"{(foreign or [folder])[0]}: is no file of preprocess; choose another {flag}")
