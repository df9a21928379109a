"""Padding dropped from a dynamic ONNX graph of BERT: `python -m models.bert.fix_onnx2unpad --help`.

The flags are those of the original. `--target any`: standard operators, which every runtime has, in the way of
`models.common.export.onnx_passes.unpad`; `ascend`: those of Ascend's Transformer acceleration library, as the original
has them (`onnx_passes.ascend`). Proved equal in ONNX Runtime, at real tokens, before anything is written; for Ascend's
operators by what they mean, as far as that is known, in float32.
"""

from pathlib import Path

from models.common.cli import command_parser, run_main
from models.common.errors import needed

PASSES = {"any": "unpad", "ascend": "unpad_ascend"}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    needed("onnxscript", "onnx")
    from models.common.export.onnx_fix import fix

    parser = command_parser("models.bert.fix_onnx2unpad", __doc__.split("\n")[0])
    parser.add_argument("--input_file", type=Path, required=True, help="ONNX graph that takes any batch and length")
    parser.add_argument("--output_file", type=Path, required=True, help="where the changed graph is written")
    parser.add_argument("--target", choices=PASSES, default="any", help="standard operators, or Ascend's own")
    args = parser.parse_args(argv)
    [count] = fix(args.input_file, args.output_file, [PASSES[args.target]]).values()
    print(f"{args.output_file}: padding dropped through {count} layers; same answers")


if __name__ == "__main__":
    run_main(main)
