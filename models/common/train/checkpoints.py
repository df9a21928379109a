"""The full state of a run on disk: safetensors plus a JSON with its checksum, written beside and renamed.

checkpoints/step-00000120/state.safetensors   weights and optimizer moments, under their parameter names
checkpoints/step-00000120/state.json          everything else; written last, so its presence says "complete"
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from models.common.errors import UserError
from models.common.files import atomic_write, read_json, sha256_of, write_json

STATE_VERSION = 1
STATE_FILE = "state.json"


@dataclass(frozen=True)
class State:
    """What a run needs to go on: named arrays, the completed steps, and JSON-ready further values."""

    step: int
    arrays: dict[str, np.ndarray]
    values: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run; keeps the newest `keep`."""

    def __init__(self, folder: Path | str, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def save(self, step: int, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Write the state after `step` completed steps, then remove the oldest beyond `keep`."""
        target = self.folder / f"step-{step:08d}"
        # A damaged leftover of the same step must not lend its state.json to the new arrays.
        shutil.rmtree(target, ignore_errors=True)
        with atomic_write(target / "state.safetensors") as temporary:
            save_file(dict(arrays), temporary)
            digest = sha256_of(temporary)
        write_json(
            target / STATE_FILE,
            {"version": STATE_VERSION, "step": step, "sha256": digest, "values": dict(values)},
        )
        self._remove_others(target)

    def _remove_others(self, newest: Path) -> None:
        """Leave `newest` and the sound ones before it, `keep` in all.

        What lies behind it or has no state.json is a damaged or interrupted save of a run that was taken up earlier.
        """
        before = [folder for folder in self._folders() if folder.name < newest.name and _is_complete(folder)]
        kept = [newest, *before[max(0, len(before) + 1 - self.keep) :]]
        for old in set(self._folders()) - set(kept):
            # The JSON goes first: without it the folder no longer counts as a checkpoint.
            (old / STATE_FILE).unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> tuple[State | None, list[str]]:
        """The newest sound state, or None where there is none yet, and a message for every damaged one passed over.

        A folder without state.json is an interrupted save and is passed over silently. Raises `UserError` where all
        that were saved are damaged: to begin anew would cost the run.
        """
        messages = []
        for folder in reversed(self._folders()):
            if not _is_complete(folder):
                continue
            try:
                return self._read(folder), messages
            except UserError as error:
                messages.append(str(error))
        if messages:
            raise UserError(f"{'; '.join(messages)}; no sound checkpoint is left: bring one back from a copy, or "
                            f"remove {self.folder} to begin anew")  # fmt: skip
        return None, messages

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    @staticmethod
    def _read(folder: Path) -> State:
        description = read_json(folder / STATE_FILE)
        arrays_file = folder / "state.safetensors"
        try:
            version, step, digest = (description[key] for key in ("version", "step", "sha256"))
            values = description["values"]
        except (KeyError, TypeError):
            raise UserError(f"{folder / 'state.json'}: damaged (a key is missing)") from None
        if version != STATE_VERSION:
            raise UserError(f"{folder / 'state.json'}: version {version} is not {STATE_VERSION}")
        if sha256_of(arrays_file) != digest:
            raise UserError(f"{arrays_file}: damaged (its checksum is not the one in state.json)")
        return State(step, load_file(arrays_file), values)


def _is_complete(folder: Path) -> bool:
    return (folder / STATE_FILE).is_file()
