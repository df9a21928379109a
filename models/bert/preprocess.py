"""SQuAD JSON -> the input folder of the C++ program: `python -m models.bert.preprocess --help`.

All settings (lengths, stride, vocabulary, letter case) come from the exported model's manifest, so that they cannot
disagree with it. The features themselves are kept in `features/` for postprocess.
"""

from pathlib import Path

from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import load_features
from data_tools.features.span import STRIDE_MEANINGS, SpanOptions
from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.export.manifest import Manifest, read_manifest
from models.common.runtime.offline import task_setting, write_samples

FEATURES = "features"


def stride_meaning(manifest: Manifest) -> str:
    """What `doc_stride` of the manifest means; a `UserError` when it is no meaning that is known."""
    meaning = manifest.task.get("stride_is")
    if meaning not in STRIDE_MEANINGS:
        raise UserError(f"manifest, task.stride_is: expected one of {', '.join(STRIDE_MEANINGS)}, got {meaning!r}")
    return meaning


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.bert.preprocess", __doc__.split("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model, or its folder")
    parser.add_argument("--eval_json_path", type=Path, required=True, help="questions in SQuAD's JSON layout")
    parser.add_argument("--result_path", type=Path, default=Path("preprocess_Result"), help="folder to write to")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.manifest)
    if manifest.task["name"] != "span" or manifest.tokenizer is None:
        raise UserError(f"{args.manifest}: not a question answering model with a vocabulary; nothing to preprocess for")
    folder = args.manifest if args.manifest.is_dir() else args.manifest.parent
    options = SpanOptions(
        max_seq_length=task_setting(manifest, "max_seq_length"),
        doc_stride=task_setting(manifest, "doc_stride"),
        max_query_length=task_setting(manifest, "max_query_length"),
        stride_is=stride_meaning(manifest),
    )
    convert_squad(
        SquadConversion(
            input_file=args.eval_json_path,
            vocab_file=folder / manifest.tokenizer.file,
            output_dir=args.result_path / FEATURES,
            is_training=False,
            do_lower_case=manifest.tokenizer.lower_case,
            span=options,
            dataset_format="numpy",
            overwrite=True,
        )
    )
    features = load_features(args.result_path / FEATURES)
    write_samples(manifest, features, args.result_path)
    print(f"{args.result_path}: {len(features)} samples of {args.eval_json_path.name}")


if __name__ == "__main__":
    run_main(main)
