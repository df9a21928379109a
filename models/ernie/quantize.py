"""An ONNX export of ERNIE in 8 bits, within a budget: `python -m models.ernie.quantize --help`.

See `models.common.finetune.quantizing`.
"""

from models.common.cli import run_main
from models.common.finetune import quantizing


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    quantizing.main("models.ernie.quantize", __doc__.split("\n")[0], argv)


if __name__ == "__main__":
    run_main(main)
