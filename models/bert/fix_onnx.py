"""Lay an ONNX graph of BERT out for Ascend's compiler: `python -m models.bert.fix_onnx --help`.

The flags are those of the original; what it does by the order of nodes is done here by their meaning, for graphs of any
exporter (`models.common.export.onnx_passes.layout`), and proved equal in ONNX Runtime before anything is written.
"""

import argparse
import re
from pathlib import Path

from models.common.cli import command_parser, run_main
from models.common.errors import UserError, needed

HIDDEN_SIZES = {"base": 768, "large": 1024}
DEFAULT = "flatten_tokens,expand_mask"


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    needed("onnxscript", "onnx")
    from models.common.export.onnx_fix import fix
    from models.common.export.onnx_passes.apply import PASSES

    parser = command_parser("models.bert.fix_onnx", __doc__.split("\n")[0])
    parser.add_argument("--input_file", type=Path, required=True, help="ONNX graph")
    parser.add_argument("--output_file", type=Path, required=True, help="where the changed graph is written")
    parser.add_argument("--model_size", choices=HIDDEN_SIZES, help="check that the graph has this size")
    parser.add_argument("--input_shape", type=_shape, metavar="B,T", help="the only batches that the result takes")
    parser.add_argument("--passes", default=DEFAULT, help=f"some of {', '.join(PASSES)}; in this order")
    args = parser.parse_args(argv)
    passes = args.passes.split(",")
    unknown = [name for name in passes if name not in PASSES]
    if unknown:
        raise UserError(f"--passes {unknown[0]} is unknown; one of {', '.join(PASSES)}")
    counts = fix(args.input_file, args.output_file, passes, HIDDEN_SIZES.get(args.model_size), args.input_shape)
    print(f"{args.output_file}: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "; same answers")


def _shape(text: str) -> tuple[int, int]:
    """An argparse type: two positive numbers."""
    match = re.fullmatch(r"([1-9]\d*),([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected rows and tokens such as 8,384, got {text!r}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_main(main)
