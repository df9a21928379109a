"""What the caller of an exported model says of it, compared with its manifest before anything runs.

    python -m models.common.finetune.stated --manifest MODEL --label_file_path label_map.json --use_crf true

The manifest alone decides how a model is fed and read, so these could do nothing but disagree with it.
"""

from pathlib import Path

from models.common.cli import boolean, command_parser, run_main
from models.common.errors import UserError, listed
from models.common.export.manifest import Manifest, read_manifest
from models.common.finetune.labels import labels_of_file
from models.common.tasks.tagging import TAG_IDS


def disagreements(manifest: Manifest, label_file: Path | None, use_crf: bool | None) -> list[str]:
    """A sentence on each thing that the manifest says otherwise; None compares nothing. Raises `UserError`."""
    problems = []
    has_crf = any(output.name == TAG_IDS for output in manifest.outputs)
    if use_crf not in (None, has_crf):
        problems.append(f"--use_crf {str(use_crf).lower()}: the model has {'a' if has_crf else 'no'} CRF")
    if label_file is None:
        return problems
    if manifest.labels is None:
        return [*problems, f"--label_file_path {label_file}: the model ({manifest.task['name']}) has no labels"]
    names = labels_of_file(str(label_file), as_tags=manifest.task["name"] == "tagging")
    if names != manifest.labels:
        problems.append(f"--label_file_path {label_file}: has {listed(names)}, the model {listed(manifest.labels)}")
    return problems


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.common.finetune.stated", __doc__.split("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model, or its folder")
    parser.add_argument("--label_file_path", type=Path, help="its labels in the order of their ids")
    parser.add_argument("--use_crf", type=boolean, help="whether it has a CRF")
    args = parser.parse_args(argv)
    problems = disagreements(read_manifest(args.manifest, check_files=False), args.label_file_path, args.use_crf)
    if problems:
        raise UserError(f"{args.manifest}: {'; '.join(problems)}")


if __name__ == "__main__":
    run_main(main)
