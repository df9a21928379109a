"""Carry BERT weights from one format to another.

    python -m models.bert.migrate --from hf --to mindspore SRC DST

Formats: `hf` (Hugging Face: safetensors, sharded or not, or pytorch_model.bin), `mindspore` (a .ckpt with this
project's parameter names), `mindspore-zoo` (a .ckpt with those of the old ModelZoo), `canonical` (safetensors with this
project's names, what its other commands read and write). Values are kept bit for bit, unless --dtype asks otherwise.
"""

from models.common.cli import run_main
from models.common.weights.formats import BERT
from models.common.weights.migrating import migrate


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    migrate(BERT, argv)


if __name__ == "__main__":
    run_main(main)
