"""Carry ERNIE weights from one format to another; no Paddle is needed.

    python -m models.ernie.migrate --from fluid --to mindspore SRC DST

Formats: `fluid` (the names of Baidu's archives: a folder with a file per variable, one file beside its program, or
.pdparams), `paddlenlp` (PaddleNLP's names: .pdparams or safetensors), `ernie-dygraph` (those of ERNIE's own dygraph
classes: .pdparams), `hf` (transformers ErnieModel and its heads), `mindspore-zoo` (a .ckpt with the names of the old
ModelZoo), `mindspore` (a .ckpt with this project's parameter names), `canonical` (safetensors with this project's
names, what its other commands read and write). Values are kept bit for bit, unless --dtype asks otherwise; Paddle's
dense weights lie transposed, and are turned. So are the two classes of the next sentence: 1 is the true next in
`fluid`, `paddlenlp`, `ernie-dygraph` and `mindspore-zoo`, 0 in the others.
"""

from models.common.cli import run_main
from models.common.weights.formats import ERNIE
from models.common.weights.migrating import migrate


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    migrate(ERNIE, argv)


if __name__ == "__main__":
    run_main(main)
