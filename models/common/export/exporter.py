"""Export of a model to a verified folder: the artefact, manifest.json and the vocabulary, all or nothing.

Everything is made in a folder beside the target, verified there, and only then moved into place, the manifest last. So
a target folder never holds an artefact that failed its verification, and a reader who finds a manifest finds the rest.
No framework here: who writes a format, and who says what the outputs must be, is given.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.export import manifest as contract
from models.common.export.manifest import Manifest
from models.common.export.verify import Predict, verify
from models.common.export.written import Written
from models.common.files import atomic_write, fsync_directory, read_json, require_file, sha256_of
from models.common.packing import Samples
from models.common.runtime.exported import runtime_of
from models.common.weights.canonical import VOCAB_FILE


@dataclass(frozen=True)
class Reference:
    """What says how an artefact must answer."""

    name: str
    predict: Predict


@dataclass(frozen=True)
class Export:
    """What to export.

    write: writes the artefact of `format` to a path. reference: the network itself. labels: names of the classes in id
    order. task: the manifest's task block. row_length: tokens of a row; max_samples: most samples a row, None for a
    graph over padded rows of one sample. precision: what the artefact computes in, float32 or float16.
    """

    write: Callable[[Path], Written]
    reference: Reference
    model: str
    config: EncoderConfig
    task: dict[str, Any]
    labels: tuple[str, ...] | None
    format: str  # one of `manifest.FORMATS`
    row_length: int
    max_samples: int | None
    vocab: Path
    lower_case: bool
    weights_file: Path
    precision: str = "float32"


def export(what: Export, target: Path, batches: Mapping[str, Samples] | None) -> Manifest:
    """Write `target` with its manifest and vocabulary and return the manifest.

    batches: name -> real samples that the verification runs; None leaves it out, and the manifest says so. Raises
    `UserError` when the graph cannot be exported, the artefact cannot be run, or it gives other results than the
    network; `target` is then as it was.
    """
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as name:
        staging = Path(name)
        manifest = _make(what, staging / target.name)
        if batches is not None:
            run, reference = runtime_of(staging).predict, what.reference
            parity = verify(run, reference.predict, batches, reference.name, what.precision)
            manifest = replace(manifest, parity=parity)
            contract.write_manifest(manifest, staging)
        publish(staging, target)
    return manifest


def publish(staging: Path, target: Path) -> None:
    """Move the finished export in `staging` (on the same disk) to the folder of `target`, the manifest last."""
    for file in (target.name, VOCAB_FILE, contract.FILE_NAME):
        (staging / file).replace(target.parent / file)
    fsync_directory(target.parent)


def check_target(target: Path) -> None:
    """Raise a `UserError` when the folder of `target` holds another artefact, which would lose its manifest.json, or
    files of the names to write that are no export."""
    present = target.parent / contract.FILE_NAME
    if not present.is_file():
        for name in (target.name, VOCAB_FILE):
            if (target.parent / name).exists():
                raise UserError(f"{target.parent / name}: is there and no part of an export; choose another folder")
    else:
        values = read_json(present)
        artefact = values.get("artefact") if isinstance(values, dict) else None
        file = artefact.get("file") if isinstance(artefact, dict) else None
        if file != target.name:
            raise UserError(f"{target.parent}: holds the export {file}, and a folder holds one; choose another folder")


def _make(what: Export, artefact: Path) -> Manifest:
    """Write artefact, vocabulary and a manifest without parity into one folder."""
    written = what.write(artefact)
    vocab = artefact.with_name(VOCAB_FILE)
    with atomic_write(vocab) as temporary:
        shutil.copyfile(require_file(what.vocab, "vocabulary"), temporary)
    highest = {"input_ids": what.config.vocab_size - 1, "token_type_ids": what.config.type_vocab_size - 1}
    dtype = written.inputs[0].dtype
    manifest = Manifest(
        model=contract.Model(what.model, what.config.to_dict()),
        task=what.task,
        artefact=contract.Artefact(artefact.name, what.format, written.version, sha256_of(artefact), written.producer),
        precision=what.precision,
        packing=contract.Packing(what.row_length, what.max_samples) if what.max_samples else None,
        sample_inputs=tuple(
            contract.SampleInput(name, f"{index:02}_data", dtype, (what.row_length,), (0, highest.get(name, 1)))
            for index, name in enumerate(contract.PADDED_INPUTS)
        ),
        inputs=written.inputs,
        outputs=written.outputs,
        labels=what.labels,
        tokenizer=contract.Tokenizer(VOCAB_FILE, sha256_of(vocab), what.lower_case),
        source_weights=contract.SourceWeights(what.weights_file.name, sha256_of(what.weights_file)),
        parity=None,
    )
    contract.write_manifest(manifest, artefact.parent)
    return manifest
