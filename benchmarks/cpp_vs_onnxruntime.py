"""The C++ program on MindSpore Lite against ONNX Runtime, float32, the same batches at equal shapes.

Both get the same weights: transformers' network is written to ONNX by torch, and taken over, exported and lowered by
`models.bert.export`. Packed graphs take the same four inputs on both sides. Measured is the time of a batch inside the
runtime, without files and start-up; the processor time of the C++ program is that of a run minus a run of one batch.
The logits of both are compared, so that the work is known to be the same.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import sidebyside
from benchmarks.environment import record
from data_tools.feature_store import FeatureSet
from models.common.cli import run_main
from models.common.files import read_json, write_json
from models.common.packing import pack, plan_rows, unpack_tokens

OURS, PEER = "C++, MindSpore Lite", "ONNX Runtime"
OUTPUTS = ("start_logits", "end_logits")
# Name -> packed?, row length, weights of --weights or random ones of BERT-base's size
CASES = {"packed": (True, 384, False), "padded": (False, 384, False), "base": (False, 128, True)}
INPUTS = ("input_ids", "sequence_ids", "token_type_ids", "position_ids")
MAX_SAMPLES = 8


def run_cpp(case: dict[str, Any]) -> None:
    """Worker: each repetition runs the program over the folder of samples; reported are its own times."""
    from models.common.export.manifest import read_manifest
    from models.common.runtime.mindspore_lite_runtime import RESULTS, build_program
    from models.common.runtime.offline import read_results, write_samples

    folder, features = Path(case["folder"]), case["features"]
    manifest, program = read_manifest(folder / "lite"), build_program()
    write_samples(manifest, features, folder / "all")
    write_samples(manifest, features.select([0]), folder / "one")

    def repeat(name: str = "all") -> dict[str, Any]:
        before = sidebyside.processor_seconds()
        sidebyside.run_quietly(
            [str(program), "--manifest", str(folder / "lite"), "--input_dir", str(folder / name),
             "--output_dir", str(folder / name), "--device_type", "CPU", "--threads", str(case["threads"])]
        )  # fmt: skip
        used = sidebyside.processor_seconds() - before
        times = read_json(folder / name / "time_Result" / "timing.json")
        batches = times["batches"]
        cpu = (used - start_up) / (batches - 1) if batches > 1 else used
        return {"seconds": times["batch_ms"]["p50"] / 1000, "cpu_seconds": cpu, "batches": batches, "timing": times}

    start_up = 0.0
    start_up = repeat("one")["cpu_seconds"]
    repeat()
    logits = read_results(manifest, folder / "all" / RESULTS, len(features))
    _save_logits(
        folder / f"{OURS}.npz", [[logits[name][i] for name in OUTPUTS] for i in range(len(features))], features
    )
    sidebyside.serve({"artefact": manifest.artefact.format}, repeat)


def run_onnxruntime(case: dict[str, Any]) -> None:
    """Worker: the same batches in ONNX Runtime; the median batch of each repetition counts."""
    import time

    import onnxruntime

    features, length, rows = case["features"], case["length"], case["rows"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    session = onnxruntime.InferenceSession(
        str(Path(case["folder"], "model.onnx")), options, providers=["CPUExecutionProvider"]
    )
    plan = plan_rows(features.lengths, length, MAX_SAMPLES if case["packed"] else 1)
    batches = [pack(features, plan[first : first + rows], length, rows) for first in range(0, len(plan), rows)]
    names = [entry.name for entry in session.get_inputs()]
    feeds = [{name: batch.arrays[name].astype(np.int64) for name in names} for batch in batches]

    def repeat() -> dict[str, Any]:
        before, seconds = sidebyside.processor_seconds(), []
        for feed in feeds:
            start = time.perf_counter()
            session.run(OUTPUTS, feed)
            seconds.append(time.perf_counter() - start)
        used = sidebyside.processor_seconds() - before
        return {"seconds": median(seconds), "cpu_seconds": used / len(feeds), "batches": len(feeds)}

    logits: list = [None] * len(features)
    for batch, feed in zip(batches, feeds, strict=True):
        for sample, values in unpack_tokens(batch, np.stack(session.run(OUTPUTS, feed), axis=-1), features.lengths):
            logits[sample] = values.T
    _save_logits(Path(case["folder"], f"{PEER}.npz"), logits, features)
    sidebyside.serve({"artefact": "onnx"}, repeat)


def _save_logits(path: Path, logits: list, features: FeatureSet) -> None:
    """Start and end logits of the real tokens of all samples, one behind the other, [2, sum of lengths]."""
    cut = [np.stack(pair)[:, :length] for pair, length in zip(logits, features.lengths, strict=True)]
    np.savez(path, logits=np.concatenate(cut, axis=1))


def make_models(folder: Path, args: argparse.Namespace, packed: bool, length: int, random_base: bool) -> None:
    """Write the model for both runtimes below `folder`: hf/ (the weights), model.onnx and lite/."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(args.seed)  # of new heads and random weights
    if random_base:
        model = BertForQuestionAnswering(BertConfig(attn_implementation="eager"))
    else:
        model = BertForQuestionAnswering.from_pretrained(args.weights, attn_implementation="eager")
    model.save_pretrained(folder / "hf")
    vocab = Path(args.weights, "vocab.txt").read_bytes()
    (folder / "hf" / "vocab.txt").write_bytes(vocab)
    _write_onnx(model, folder / "model.onnx", packed, args.rows, length)
    sidebyside.run_quietly(
        [sidebyside.PYTHON, "-m", "models.bert.export", "--export_ckpt_file", str(folder / "hf"),
         "--export_file_name", str(folder / "lite" / "model"), "--file_format", "MINDIR_LITE",
         "--export_batch_size", str(args.rows), "--max_seq_length", str(length), "--packed", str(packed).lower(),
         "--max_samples_per_row", str(MAX_SAMPLES), "--doc_stride", str(length // 3), "--verify", "false"]
    )  # fmt: skip


def _write_onnx(model: Any, path: Path, packed: bool, rows: int, length: int) -> None:
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, sequence_ids, token_type_ids, position_ids=None):
            mask = sequence_ids  # one sample a row: 1 for its tokens, 0 for padding
            if packed:  # transformers takes [B, 1, T, T] as what is added to the scores
                same = sequence_ids[:, None, None, :] == sequence_ids[:, None, :, None]
                mask = (1.0 - same.float()) * -10000.0
            output = self.model(input_ids, mask, token_type_ids, position_ids)
            return output.start_logits, output.end_logits

    names = INPUTS if packed else INPUTS[:3]
    example = tuple(torch.ones(rows, length, dtype=torch.long) for _ in names)
    with warnings.catch_warnings():
        # The exporter by tracing is called old; the new one needs a further package and gives no faster graph here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph().eval(), example, path, input_names=list(names), output_names=list(OUTPUTS), opset_version=17,
            dynamo=False,
        )  # fmt: skip


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Build both models of one case and race them."""
    packed, length, random_base = CASES[name]
    length = min(length, args.max_seq_length)
    features = sidebyside.draw_samples(argparse.Namespace(**{**vars(args), "max_seq_length": length}), False)
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), args, packed, length, random_base)
        case = {
            "features": features, "folder": folder, "packed": packed, "length": length, "rows": args.rows,
            "threads": args.threads,
        }  # fmt: skip
        work = {"batches": 1, "positions": args.rows * length}
        summary = sidebyside.measure("benchmarks.cpp_vs_onnxruntime", args, case, [OURS, PEER], work)
        logits = [np.load(Path(folder, f"{who}.npz"))["logits"] for who in (OURS, PEER)]
    summary["largest_difference_of_logits"] = float(np.abs(logits[0] - logits[1]).max())
    print(f"\n{name}: batches of {args.rows} x {length}")
    sidebyside.print_table(summary)
    print(f"largest difference of the logits {summary['largest_difference_of_logits']:.1e}")
    return summary


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sidebyside.add_flags(parser, samples=64)
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which shapes and models")
    args = parser.parse_args(argv)
    if args.worker:
        name, case = sidebyside.worker_setup(args)
        run_cpp(case) if name == OURS else run_onnxruntime(case)
        return
    args = sidebyside.settle(args)
    results = {name: measure(name, args) for name in args.cases}
    environment = record("benchmarks.cpp_vs_onnxruntime", argv, args.threads)
    write_json(args.output, {"cases": results, "settings": vars(args), "environment": environment})


if __name__ == "__main__":
    run_main(main)
