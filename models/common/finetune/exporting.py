"""Export of fine-tuned networks for offline inference, whatever the task: the flow of every `export` command.

Writes EXPORT_FILE_NAME.mindir (.air, .onnx), and beside it manifest.json (how to feed it, and what the verification
measured) and vocab.txt; give each export a folder of its own. Formats: MINDIR, which this MindSpore loads; MINDIR_LITE,
the same graph lowered for MindSpore Lite 2.0; shapes are static. ONNX is built from the weights, of free shapes unless
`--dynamic false`. Before the command says success, the file has been run on real samples, padded and of full length,
and compared with the network: MINDIR in MindSpore, MINDIR_LITE in MindSpore Lite (through the program of
ascend310_infer, which is built for that), ONNX in ONNX Runtime. AIR, for the ATC compiler, is written by MindSpore on
an Ascend device alone, and nothing can load it back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.feature_store import FeatureSet, load_features
from data_tools.sample_texts import sample_windows
from models.common.cli import command_parser
from models.common.config import add_flags, given_flags, load_yaml, option, resolve
from models.common.device import set_device
from models.common.errors import UserError, needed
from models.common.export.manifest import Parity
from models.common.export.onnx_targets import TARGETS
from models.common.export.written import Written
from models.common.finetune.finetuned import FineTuned, ModelConfig, read_finetuned
from models.common.finetune.networks import Networks

if TYPE_CHECKING:
    from mindspore import nn

    from models.common.export.exporter import Reference

VERIFIED_SAMPLES = 32  # of --verify_data
SUFFIXES = {"MINDIR": ".mindir", "MINDIR_LITE": ".mindir", "AIR": ".air", "ONNX": ".onnx"}


@dataclass(frozen=True)
class ExportConfig(ModelConfig):
    """The flags; those of the original README keep their names."""

    export_ckpt_file: str | None = option(None, "weights of any format, or the folder of a run that fine-tuned them")
    export_file_name: str = option("export/model", "what to write; .mindir (.air, .onnx) is added")
    export_batch_size: int = option(8, "rows of a batch of the graph", low=1)
    file_format: str = option("MINDIR", "what to write", choices=tuple(SUFFIXES))
    dynamic: bool | None = option(None, "ONNX: batches of any size and length (the default), or of one shape")
    onnx_target: str | None = option(
        None, "ONNX: plain operators (any, the default), or a graph changed for where it will run", choices=TARGETS
    )
    onnx_precision: str | None = option(
        None, "ONNX: what the graph computes in; float16 is for devices that have it", choices=("float32", "float16")
    )
    packed: bool = option(
        True, "several samples a row, so that padding is not computed; false: one padded sample a row"
    )
    verify: bool = option(True, "compare the file with the network before success; false: the manifest says unverified")
    verify_data: str | None = option(None, "features whose samples are compared too, written by data_tools.convert")


def main(module: str, description: str, networks: Networks, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE`."""
    parser = command_parser(module, description)
    parser.add_argument("--config_path", metavar="FILE", help="YAML file of settings; flags win over it")
    add_flags(parser, ExportConfig)
    arguments = parser.parse_args(argv)
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if arguments.config_path:
        layers.append((arguments.config_path, load_yaml(arguments.config_path)))
    layers.append(("flags", given_flags(arguments, ExportConfig)))
    config = resolve(ExportConfig, layers)
    check(config)
    config, model = read_finetuned(Path(config.export_ckpt_file), ExportConfig, layers)
    set_device(config.device_target, config.device_id)
    run(config, model, networks)


def check(config: ExportConfig) -> None:
    """Everything that can be wrong with the flags alone, listed at once."""
    problems = []
    if config.export_ckpt_file is None:
        problems.append("--export_ckpt_file is needed: the fine-tuned weights, or the folder of the run that made them")
    if config.file_format == "AIR" and config.device_target != "Ascend":
        problems.append(
            "--file_format AIR: only MindSpore on an Ascend device writes it; give --device_target Ascend there, or "
            "export MINDIR, which MindSpore Lite on Ascend converts"
        )
    if config.file_format == "AIR" and config.verify:
        problems.append("--file_format AIR: nothing can load it back to verify it; give --verify false")
    if config.verify_data and not config.verify:
        problems.append("--verify_data has no use with --verify false")
    # The default cannot be told from what was not given.
    if not config.packed and config.max_samples_per_row not in (1, ExportConfig.max_samples_per_row):
        problems.append(
            f"--max_samples_per_row {config.max_samples_per_row} has no use with --packed false, where a row is one "
            "sample; leave one out"
        )
    if config.file_format != "ONNX":
        given = [name for name in ("dynamic", "onnx_target", "onnx_precision") if getattr(config, name) is not None]
        problems += [f"--{name} is of ONNX alone; leave it out, or give --file_format ONNX" for name in given]
    if f".{target_of(config).name.lstrip('.')}" in SUFFIXES.values():
        problems.append(f"--export_file_name {config.export_file_name}: names no file; give one, such as "
                        f"{Path(config.export_file_name) / 'model'}")  # fmt: skip
    if problems:
        raise UserError("; ".join(problems))


def target_of(config: ExportConfig) -> Path:
    """The file to write."""
    suffix = SUFFIXES[config.file_format]
    return Path(config.export_file_name.removesuffix(suffix) + suffix)


def run(config: ExportConfig, model: FineTuned, networks: Networks) -> None:
    """Build the network, export it, verify it, say what was measured."""
    from models.common.export.exporter import Export, check_target, export

    target = target_of(config)
    check_target(target)
    batches = samples_to_verify(config, model) if config.verify else None
    deployment, tokenizer = model.deployment, model.tokenizer
    samples = config.max_samples_per_row if config.packed else None
    network = model.network(networks, samples or 1)
    what = Export(
        write=writer_of(config, model, network), reference=reference_of(config, model, network), model=networks.model,
        config=deployment.checkpoint.config, task=deployment.task, labels=deployment.labels,
        format=config.file_format.lower(), row_length=model.row_length, max_samples=samples,
        vocab=tokenizer.vocab_file, lower_case=tokenizer.lower_case, weights_file=deployment.checkpoint.file,
        precision=config.onnx_precision or "float32",
    )  # fmt: skip
    manifest = export(what, target, batches)
    size = target.stat().st_size / 1e6
    kind = {"AIR": "", "ONNX": "opset {}, "}.get(config.file_format, "MindIR version {}, ")
    version = kind.format(manifest.artefact.ir_version)
    print(f"{target}: {config.file_format}, {version}{size:.1f} MB")
    if manifest.parity is None:
        print("NOT verified, as asked by --verify false; the manifest says so (parity null)")
    else:
        print(describe(manifest.parity))


def writer_of(config: ExportConfig, model: FineTuned, network: "nn.Cell") -> Callable[[Path], Written]:
    """What writes the model in the format asked for."""
    deployment, samples = model.deployment, config.max_samples_per_row if config.packed else None
    if config.file_format == "ONNX":
        needed("onnxscript", "onnx")
        from models.common.export import onnx_file
        from models.common.export.onnx_graph.build import Layout

        dynamic = config.dynamic is not False
        layout = Layout(
            rows=None if dynamic else config.export_batch_size, length=None if dynamic else model.row_length,
            longest=model.row_length, max_samples=samples,
        )  # fmt: skip
        checkpoint = deployment.checkpoint
        return onnx_file.writer(
            deployment.name, checkpoint.config, checkpoint.tensors, deployment.outputs, layout,
            config.onnx_target or TARGETS[0], config.onnx_precision or "float32",
        )  # fmt: skip
    from models.common.export import mindir

    return mindir.writer(
        network, deployment.outputs, config.export_batch_size, model.row_length, config.packed,
        config.file_format.lower(),
    )  # fmt: skip


def reference_of(config: ExportConfig, model: FineTuned, network: "nn.Cell") -> "Reference":
    """The network itself, one sample a row, so that packing is verified too."""
    import mindspore

    from models.common.export.exporter import Reference
    from models.common.runtime.mindspore_runtime import MindSporeRuntime

    runtime = MindSporeRuntime(
        network, model.deployment.outputs, model.row_length, config.export_batch_size, max_samples=1
    )
    return Reference(f"mindspore {mindspore.__version__} {mindspore.get_context('device_target')}", runtime.predict)


def describe(parity: Parity) -> str:
    """What the verification measured, for a person."""
    differences = ", ".join(f"{name} {value:.2g}" for name, value in parity.max_abs_difference.items())
    return (
        f"verified against {parity.reference} on {', '.join(parity.batches)} samples: largest differences "
        f"{differences}, allowed {parity.tolerance:.2g}"
    )


def samples_to_verify(config: ExportConfig, model: FineTuned) -> dict[str, FeatureSet]:
    """Real samples of many lengths: built-in text, and some of --verify_data evenly spread from short to long."""
    padded, unpadded = sample_windows(model.tokenizer, model.row_length)
    batches = {"padded": padded, "unpadded": unpadded}
    if config.verify_data:
        features = load_features(config.verify_data)
        longest = int(features.lengths.max())
        if longest > model.row_length:
            raise UserError(
                f"{config.verify_data}: has samples of {longest} tokens, the graph takes {model.row_length}"
            )
        batches["verify_data"] = features.spread_by_length(VERIFIED_SAMPLES)
    return batches
