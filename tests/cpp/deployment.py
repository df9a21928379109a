"""A tiny random model on its way through the deployment: exported, samples preprocessed, run by the C++ program."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.bert import export, preprocess
from models.common.export.manifest import FILE_NAME
from models.common.files import sha256_of
from tests.commands import flags
from tests.tiny import PARAGRAPHS

LENGTH = 64  # tokens of a sample and of a row
FOLDERS = ("00_data", "01_data", "02_data")
ROWS, PER_ROW = 2, 3  # of a packed batch
PADDED_ROWS = 3


@dataclass(frozen=True)
class Deployed:
    """model: the folder of the export. samples: what preprocess wrote. arrays: its files, read with numpy alone."""

    model: Path
    samples: Path
    arrays: dict[str, np.ndarray]  # folder name -> int32 [N, T]

    @property
    def count(self) -> int:
        return len(self.arrays[FOLDERS[0]])


def write_short_squad(path: Path) -> Path:
    """Questions about beginnings of the tiny paragraphs: samples from a fifth of a row to a full one."""
    paragraphs = []
    for number, (context, questions) in enumerate(PARAGRAPHS.items()):
        words = context.split()
        for size in range(2 + number, len(words), 5):
            part = " ".join(words[:size])
            question = list(questions)[size % len(questions)]
            answers = [{"text": words[0], "answer_start": 0}]
            paragraphs.append(
                {"context": part, "qas": [{"id": f"{number}-{size}", "question": question, "answers": answers}]}
            )
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "short", "paragraphs": paragraphs}]}))
    return path


def deploy(weights: Path, data: Path, folder: Path, **settings: object) -> Deployed:
    """Export `weights` in the lowered format, verified, and preprocess `data` for it."""
    model, samples = folder / "mindir", folder / "samples"
    export.main(flags({
        "export_ckpt_file": weights, "export_file_name": model / "tiny", "file_format": "MINDIR_LITE",
        "max_seq_length": LENGTH, "doc_stride": 16, **settings,
    }))  # fmt: skip
    preprocess.main(["--manifest", str(model), "--eval_json_path", str(data), "--result_path", str(samples)])
    return Deployed(model, samples, {name: read_bins(samples / name, "span_bs1") for name in FOLDERS})


def read_bins(folder: Path, stem: str) -> np.ndarray:
    """int32 [N, T] of the files `stem`_0.bin, `stem`_1.bin, ...; every file of the folder must be one of them."""
    count = len(list(folder.iterdir()))
    return np.stack([np.fromfile(folder / f"{stem}_{index}.bin", "<i4") for index in range(count)])


def run_program(program: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run the C++ program to its end, whatever that is."""
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def infer(program: Path, deployed: Deployed, output: Path, *flags: object, **options: object):
    """Run the program over the samples of `deployed`."""
    paths = ("--mindir_path", deployed.model, "--input_dir", deployed.samples, "--output_dir", output)
    return run_program(program, *paths, *flags, **options)


def copy_of(deployed: Deployed, folder: Path) -> Deployed:
    """The same in another place, to be damaged there."""
    shutil.copytree(deployed.model, folder / "mindir")
    shutil.copytree(deployed.samples, folder / "samples")
    return Deployed(folder / "mindir", folder / "samples", deployed.arrays)


def editing(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """What applies `change` to the values of a JSON file."""

    def apply(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return apply


def replace_model(deployed: Deployed, content: bytes) -> None:
    """Another artefact under the same name, with the SHA-256 that belongs to it."""
    artefact = deployed.model / "tiny.mindir"
    artefact.write_bytes(content)
    editing(lambda m: m["artefact"].update(sha256=sha256_of(artefact)))(deployed.model / FILE_NAME)


def contents(folder: Path) -> dict[str, bytes]:
    """Relative name -> bytes of every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
