"""No work on padding in a dynamic ONNX graph of BERT: `python -m models.bert.fix_onnx2unpad --help`.

The flags are those of the original. Standard operators, which every runtime has, in the way of
`models.common.export.onnx_passes.unpad`; proved equal in ONNX Runtime, at real tokens, before anything is written.
"""

from pathlib import Path

from models.common.cli import command_parser, run_main
from models.common.errors import needed


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    needed("onnxscript", "onnx")
    from models.common.export.onnx_fix import fix

    parser = command_parser("models.bert.fix_onnx2unpad", __doc__.split("\n")[0])
    parser.add_argument("--input_file", type=Path, required=True, help="ONNX graph that takes any batch and length")
    parser.add_argument("--output_file", type=Path, required=True, help="where the changed graph is written")
    args = parser.parse_args(argv)
    counts = fix(args.input_file, args.output_file, ["unpad"])
    print(f"{args.output_file}: no padding through {counts['unpad']} layers; same answers")


if __name__ == "__main__":
    run_main(main)
