"""Export a fine-tuned BERT for offline inference: `python -m models.bert.export --help`.

Writes EXPORT_FILE_NAME.mindir, and beside it manifest.json (how to feed it, and what the verification measured) and
vocab.txt; give each export a folder of its own. Formats: MINDIR, which this MindSpore loads; MINDIR_LITE, the same
graph lowered for MindSpore Lite 2.0. Shapes are static. Before the command says success, the file has been run on real
samples, padded and of full length, and compared with the network: MINDIR in MindSpore, MINDIR_LITE in MindSpore Lite
through the program of ascend310_infer, which is built for that.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.span import STRIDE_MEANINGS, SpanOptions
from data_tools.sample_texts import sample_windows
from data_tools.tokenization import WordPieceTokenizer
from models.bert.config import OTHER_HEADS, OUTPUTS
from models.common.cli import command_parser, run_main
from models.common.config import add_flags, given_flags, load_yaml, option, resolve
from models.common.device import set_device
from models.common.errors import UserError
from models.common.export.manifest import Parity
from models.common.tasks.span import DEFAULT_MAX_ANSWER_LENGTH, DEFAULT_N_BEST_SIZE
from models.common.weights.canonical import MODEL_FILE
from models.common.weights.reading import Checkpoint, read_checkpoint

RUN_CONFIG = "config.yaml"
VERIFIED_SAMPLES = 32  # of --verify_data


@dataclass(frozen=True)
class SpanSettings:
    """What the manifest tells those who make the samples and decode the answers; a run's own settings are taken."""

    max_seq_length: int = option(384, "tokens in a row and in the longest sample", low=8)
    doc_stride: int = option(128, "tokens that two windows of a context share", low=0)
    stride_is: str = option("overlap", "meaning of doc_stride, see data_tools.convert squad", choices=STRIDE_MEANINGS)
    max_query_length: int = option(64, "longest question in tokens", low=1)
    n_best_size: int = option(DEFAULT_N_BEST_SIZE, "starts and ends tried in each window", low=1)
    max_answer_length: int = option(DEFAULT_MAX_ANSWER_LENGTH, "longest answer in tokens", low=1)


@dataclass(frozen=True)
class ExportConfig(SpanSettings):
    """The flags; those of the original README keep their names."""

    export_ckpt_file: str | None = option(
        None, "weights of any format, or the folder of a run of models.bert.run_squad"
    )
    export_file_name: str = option("export/bert_squad", "what to write; .mindir is added")
    export_batch_size: int = option(8, "rows of a batch of the graph", low=1)
    file_format: str = option("MINDIR", "what to write", choices=("MINDIR", "MINDIR_LITE", "AIR"))
    task: str = option("squad", "what the model was fine-tuned for", choices=("squad",))
    packed: bool = option(
        True, "several samples a row, so that padding is not computed; false: one padded sample a row"
    )
    max_samples_per_row: int = option(8, "most samples in a row of a packed graph", low=1)
    vocab_file_path: str | None = option(None, "vocabulary; default: the one beside the weights")
    do_lower_case: bool = option(True, "the vocabulary is lower-case")
    verify: bool = option(True, "compare the file with the network before success; false: the manifest says unverified")
    verify_data: str | None = option(None, "features whose samples are compared too, written by data_tools.convert")
    device_target: str = option("CPU", "device that MindSpore computes on", choices=("CPU", "GPU", "Ascend"))
    device_id: int = option(0, "which device; on CPU there is only 0", low=0)


# What an export takes over from the run that trained the weights.
FROM_RUN = (*(field.name for field in fields(SpanSettings)), "max_samples_per_row", "do_lower_case")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.bert.export", __doc__.split("\n")[0])
    parser.add_argument("--config_path", metavar="FILE", help="YAML file of settings; flags win over it")
    add_flags(parser, ExportConfig)
    arguments = parser.parse_args(argv)
    layers: list[tuple[str, dict[str, Any]]] = []
    if arguments.config_path:
        layers.append((arguments.config_path, load_yaml(arguments.config_path)))
    layers.append(("flags", given_flags(arguments, ExportConfig)))
    config = resolve(ExportConfig, layers)
    weights, run_config = locate(config.export_ckpt_file)
    if run_config:
        taken = {name: value for name, value in load_yaml(run_config).items() if name in FROM_RUN}
        config = resolve(ExportConfig, [(str(run_config), taken), *layers])
    check(config)
    set_device(config.device_target, config.device_id)
    run(config, read_checkpoint(weights))


def locate(given: str | None) -> tuple[Path, Path | None]:
    """(the weights, config.yaml of their run if there is one) for --export_ckpt_file; of a run folder the best ones."""
    if given is None:
        raise UserError("--export_ckpt_file is needed: the fine-tuned weights, or the folder of the run that made them")
    path = Path(given)
    if (path / RUN_CONFIG).is_file():
        kept = [path / kind for kind in ("best", "last") if (path / kind / MODEL_FILE).is_file()]
        if not kept:
            raise UserError(f"{path}: the run has no best/ or last/ weights yet; let it finish")
        return kept[0], path / RUN_CONFIG
    # Weights of a run lie in its folder (squad.ckpt) or one below (best/model.safetensors).
    above = [parent / RUN_CONFIG for parent in path.absolute().parents[: 1 if path.is_dir() else 2]]
    return path, next((file for file in above if file.is_file()), None)


def check(config: ExportConfig) -> None:
    """Everything that can be wrong with the settings alone, listed at once."""
    problems = []
    if config.file_format == "AIR":
        problems.append(
            "--file_format AIR: only MindSpore on an Ascend device writes it, nothing can load it back to verify it, "
            "and this project has not run on one; export MINDIR, which MindSpore Lite on Ascend converts"
        )
    try:
        SpanOptions(config.max_seq_length, config.doc_stride, config.stride_is, config.max_query_length)
    except UserError as error:
        problems.append(str(error))
    if config.verify_data and not config.verify:
        problems.append("--verify_data has no use with --verify false")
    if problems:
        raise UserError("; ".join(problems))


def run(config: ExportConfig, checkpoint: Checkpoint) -> None:
    """Build the network, export it, verify it, say what was measured."""
    from models.bert.network import BertForQuestionAnswering
    from models.common.export.exporter import Export, check_target, export
    from models.common.weights.loading import load_into

    print(checkpoint.summary(), flush=True)
    limit = checkpoint.config.max_position_embeddings
    if config.max_seq_length > limit:
        raise UserError(f"--max_seq_length {config.max_seq_length}: the model has {limit} position embeddings")
    vocab = config.vocab_file_path or checkpoint.vocab
    if vocab is None:
        raise UserError("no vocab.txt lies beside the weights; give --vocab_file_path")
    target = Path(config.export_file_name.removesuffix(".mindir") + ".mindir")
    check_target(target)
    tokenizer = WordPieceTokenizer(vocab, config.do_lower_case)
    if len(tokenizer.vocab) > checkpoint.config.vocab_size:
        raise UserError(f"{vocab}: has {len(tokenizer.vocab)} tokens, the model {checkpoint.config.vocab_size}")
    batches = samples_to_verify(config, tokenizer) if config.verify else None
    network = BertForQuestionAnswering(checkpoint.config)
    load_into(network, checkpoint.tensors, allow_unused=OTHER_HEADS)
    span_settings = {field.name: getattr(config, field.name) for field in fields(SpanSettings)}
    what = Export(
        network=network, model="bert", config=checkpoint.config, task={"name": "span", **span_settings},
        outputs=OUTPUTS, format=config.file_format.lower(), rows=config.export_batch_size,
        row_length=config.max_seq_length, max_samples=config.max_samples_per_row if config.packed else None,
        vocab=Path(vocab), lower_case=config.do_lower_case, weights_file=checkpoint.file,
    )  # fmt: skip
    manifest = export(what, target, batches)
    size = target.stat().st_size / 1e6
    print(f"{target}: {config.file_format}, MindIR version {manifest.artefact.ir_version}, {size:.1f} MB")
    if manifest.parity is None:
        print("NOT verified, as asked by --verify false; the manifest says so (parity null)")
    else:
        print(describe(manifest.parity))


def describe(parity: Parity) -> str:
    """What the verification measured, for a person."""
    differences = ", ".join(f"{name} {value:.2g}" for name, value in parity.max_abs_difference.items())
    return (
        f"verified against {parity.reference} on {', '.join(parity.batches)} samples: largest differences "
        f"{differences}, allowed {parity.tolerance:.2g}"
    )


def samples_to_verify(config: ExportConfig, tokenizer: WordPieceTokenizer) -> dict[str, FeatureSet]:
    """Real samples of many lengths: built-in text, and some of --verify_data evenly spread from short to long."""
    padded, unpadded = sample_windows(tokenizer, config.max_seq_length)
    batches = {"padded": padded, "unpadded": unpadded}
    if config.verify_data:
        features = load_features(config.verify_data)
        longest = int(features.lengths.max())
        if longest > config.max_seq_length:
            raise UserError(
                f"{config.verify_data}: has samples of {longest} tokens, the graph takes {config.max_seq_length}"
            )
        order = np.argsort(features.lengths, kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(VERIFIED_SAMPLES, len(order))).astype(int)]
        batches["verify_data"] = features.select(chosen)
    return batches


if __name__ == "__main__":
    run_main(main)
