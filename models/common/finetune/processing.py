"""Before and behind ais_bench, which runs an exported ONNX graph (as OM) over folders of .npy files: the flow of every
command that does so.

preprocess writes a folder for each graph input below --save_dir, postprocess decodes what ais_bench wrote to
--result_dir, and leaves predictions and eval.json there. Lengths, stride, vocabulary and labels come from the export's
manifest, so that the two cannot disagree; a flag that says otherwise is refused. Decoding and scoring are the same code
as for every other runtime.
"""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from data_tools.datasets_squad import SPLIT, write_validation
from data_tools.feature_store import FeatureSet
from data_tools.tokenization import limit_threads
from models.common.cli import command_parser
from models.common.errors import UserError
from models.common.export.manifest import Manifest, Packing, read_manifest
from models.common.export.typed_json import convert
from models.common.files import locked_folder, read_json, write_json
from models.common.finetune.offline import OfflineTask, data_flags, given_data, offline_task
from models.common.runtime.npy_files import FileLayout, input_folders, plan_files, read_results, write_inputs
from models.common.weights.canonical import tensors_sha256

PREPROCESS, POSTPROCESS = "preprocess", "postprocess"
RECORD = "preprocess.json"
MANIFEST_FLAGS = ("max_seq_length", "doc_stride", "n_best_size", "max_answer_length")
MODE_FLAGS = {"preprocessing_num_workers": PREPROCESS, "result_dir": POSTPROCESS}
DATASET = "squad"


@dataclass(frozen=True)
class Record:
    """What the files in --save_dir were made of; written last. weights, samples: SHA-256."""

    layout: FileLayout
    weights: str
    inputs: tuple[str, ...]
    packing: Packing | None
    samples: str


def main(module: str, description: str, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE`."""
    args = _parser(module, description).parse_args(argv)
    manifest = read_manifest(args.model_path, check_files=args.process_mode == PREPROCESS)
    problems = _problems(args, manifest)
    if problems:
        raise UserError("; ".join(problems))
    (preprocess if args.process_mode == PREPROCESS else postprocess)(args, manifest)


def preprocess(args: argparse.Namespace, manifest: Manifest) -> None:
    """Samples -> the inputs of the graph."""
    layout = FileLayout(args.per_device_eval_batch_size or 1, bool(args.pad_to_max_length))
    layout.check(manifest)
    if args.preprocessing_num_workers:
        limit_threads(args.preprocessing_num_workers)
    with locked_folder(args.save_dir) as folder:
        with input_folders(manifest, folder) as folders:
            task = _task(args, manifest)
            features = task.prepare(folder)
            plan = plan_files(manifest, features.lengths, layout)
            write_inputs(manifest, features, plan, folders)
            (folder / RECORD).unlink(missing_ok=True)
        write_json(folder / RECORD, dataclasses.asdict(_record(manifest, features, layout)))
    inputs = ",".join(str(folder / tensor.name) for tensor in manifest.inputs)
    print(f"{folder}: {len(features)} samples of {task.data.name} in {len(plan)} files; ais_bench --input {inputs}")


def postprocess(args: argparse.Namespace, manifest: Manifest) -> None:
    """Results of the graph -> predictions and their score."""
    found = _read_record(args.save_dir)
    for name, made in dataclasses.asdict(found.layout).items():
        if getattr(args, name) not in (None, made):
            raise UserError(f"{args.save_dir}: was preprocessed with {name} {made}, not {getattr(args, name)}; leave "
                            f"--{name} out, or preprocess again")  # fmt: skip
    found.layout.check(manifest)
    with locked_folder(args.save_dir) as folder:
        task = _task(args, manifest)
        features = task.features(folder)
    wanted = _record(manifest, features, found.layout)
    differ = [field.name for field in dataclasses.fields(Record)
              if getattr(found, field.name) != getattr(wanted, field.name)]  # fmt: skip
    if differ:
        raise UserError(f"{folder}: was preprocessed for another model than {args.model_path} ({', '.join(differ)} "
                        "differ); preprocess again")  # fmt: skip
    plan = plan_files(manifest, features.lengths, found.layout)
    outputs = read_results(manifest, features, plan, args.result_dir)
    scores = task.score(features, outputs, args.result_dir, None)
    print(json.dumps({name: scores[name] for name in task.printed if name in scores}))


def _parser(module: str, description: str) -> argparse.ArgumentParser:
    parser = command_parser(module, description)
    parser.add_argument("--model_path", type=Path, required=True, help="folder of an ONNX export, with manifest.json")
    parser.add_argument("--process_mode", choices=(PREPROCESS, POSTPROCESS), required=True)
    data_flags(parser)
    parser.add_argument(
        "--dataset_name", help=f"where no file is given: {SPLIT} data of the datasets library, like {DATASET} (default)"
    )
    parser.add_argument(
        "--offline_download", action="store_true", help="read that from ./NAME/data, made by save_to_disk, not the hub"
    )
    parser.add_argument("--save_dir", type=Path, default=Path("prep_data"), help="what preprocess writes")
    parser.add_argument("--result_dir", type=Path, help="postprocess: what ais_bench wrote; the predictions go there")
    parser.add_argument("--preprocessing_num_workers", type=int, help="preprocess: threads (default: all cores)")
    for name in MANIFEST_FLAGS:
        parser.add_argument(f"--{name}", type=int, help="as in the manifest, which has it; anything else is refused")
    parser.add_argument(
        "--pad_to_max_length", action="store_true", default=None,
        help="pad all rows to max_seq_length, as a graph of fixed shape needs; else to the longest of each file",
    )  # fmt: skip
    parser.add_argument("--per_device_eval_batch_size", type=int, help="rows of a file (default: 1)")
    return parser


def _problems(args: argparse.Namespace, manifest: Manifest) -> list[str]:
    """Everything that can be wrong with the flags, given the model."""
    problems = []
    if manifest.artefact.format != "onnx":
        problems.append(f"{args.model_path}: holds {manifest.artefact.format}; give an ONNX export")
    for name in MANIFEST_FLAGS:
        given, made = getattr(args, name), manifest.task.get(name)
        if given not in (None, made):
            problems.append(f"--{name} {given}: the model's manifest says {made}; leave the flag out, or export again")
    for name, mode in MODE_FLAGS.items():
        if getattr(args, name) is not None and args.process_mode != mode:
            problems.append(f"--{name} is of --process_mode {mode}; leave it out")
    if args.process_mode == POSTPROCESS and args.result_dir is None:
        problems.append("--result_dir is needed: what ais_bench wrote")
    for name in ("preprocessing_num_workers", "per_device_eval_batch_size"):
        count = getattr(args, name)
        if count is not None and count < 1:
            problems.append(f"--{name} must be positive, got {count}")
    given = [f"--{name}" for name in given_data(args)]
    if (args.dataset_name or args.offline_download) and (given or manifest.task["name"] != "span"):
        problems.append("--dataset_name and --offline_download are of questions that no file is given for; leave "
                        f"{'them' if not given else 'them or ' + given[0]} out")  # fmt: skip
    return problems


def _task(args: argparse.Namespace, manifest: Manifest) -> OfflineTask:
    """The model with the data that the flags name; data of the datasets library become a file in --save_dir."""
    given = given_data(args)
    if manifest.task["name"] == "span" and not given:
        name = args.dataset_name or DATASET
        given["eval_json_path"] = args.save_dir / f"{Path(name).name}-{SPLIT}.json"
        write_validation(name, args.offline_download, given["eval_json_path"])
    return offline_task(manifest, args.model_path, given)


def _record(manifest: Manifest, features: FeatureSet, layout: FileLayout) -> Record:
    samples = tensors_sha256({**features.tokens, **features.scalars, "starts": features.starts})
    inputs = tuple(tensor.name for tensor in manifest.inputs)
    return Record(layout, manifest.source_weights.sha256, inputs, manifest.packing, samples)


def _read_record(folder: Path) -> Record:
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder}: has no {RECORD}, which preprocess writes last; run --process_mode {PREPROCESS}")
    problems: list[str] = []
    record = convert(read_json(folder / RECORD), Record, "", problems)
    if problems:
        raise UserError(f"{folder / RECORD}: {'; '.join(problems)}; run --process_mode {PREPROCESS} again")
    return record
