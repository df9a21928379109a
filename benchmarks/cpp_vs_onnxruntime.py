"""The C++ program on MindSpore Lite against ONNX Runtime, float32, batches of the same shape.

Both get the same weights: transformers' network is written to ONNX by torch, and taken over, exported and lowered by
`models.bert.export`. Packed graphs take the same four inputs on both sides. Measured is the time of a batch inside the
runtime, without files and start-up; as shapes are static, a batch costs the same whatever lies in it, and the two may
pack the samples into other rows. The processor time of the C++ program is that of a run minus a run of one batch.
The logits of both are compared, so that the work is known to be the same.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import samples, sidebyside
from models.common.cli import run_main
from models.common.files import read_json
from models.common.packing import pack, plan_rows, unpack_tokens
from models.common.tasks.span import OUTPUTS

OURS, PEER = "C++, MindSpore Lite", "ONNX Runtime"
# Name -> packed?, row length, random weights of BERT-base's size instead of --weights?
CASES = {"packed": (True, samples.SEQUENCE_LENGTH, False), "padded": (False, samples.SEQUENCE_LENGTH, False),
         "base": (False, 128, True)}  # fmt: skip
INPUTS = ("input_ids", "sequence_ids", "token_type_ids", "position_ids")
MAX_SAMPLES = 8
WARM_UP_BATCHES = 2  # of each run of the C++ program


def run_cpp(case: dict[str, Any]) -> None:
    """Worker: each repetition runs the program over the folder of samples; reported are its own times."""
    from models.common.export.manifest import read_manifest
    from models.common.runtime.mindspore_lite_runtime import RESULTS, build_program
    from models.common.runtime.offline import read_results, write_samples

    folder, features = Path(case["folder"]), case["features"]
    manifest, program = read_manifest(folder / "lite"), build_program()
    write_samples(manifest, features, folder / "all")
    write_samples(manifest, features.select([0]), folder / "one")

    def run(name: str) -> tuple[dict[str, Any], float]:
        before = sidebyside.processor_seconds()
        sidebyside.run_quietly(
            [str(program), "--manifest", str(folder / "lite"), "--input_dir", str(folder / name),
             "--output_dir", str(folder / name), "--device_type", "CPU", "--threads", str(case["threads"]),
             "--warmup", str(WARM_UP_BATCHES)]
        )  # fmt: skip
        used = sidebyside.processor_seconds() - before
        return read_json(folder / name / "time_Result" / "timing.json"), used

    run("one")  # fills the page cache
    start_up = run("one")[1]  # and one batch

    def repeat() -> dict[str, Any]:
        times, used = run("all")
        batches = times["batches"]
        more = used - start_up  # of batches - 1; with a single batch or a noisy start the time cannot be told
        return {
            "seconds": times["batch_ms"]["p50"] / 1000,
            "cpu_seconds": more / (batches - 1) if batches > 1 and more > 0 else None,
            "batches": batches, "windows": times["samples"], "real_tokens": times["tokens"],
        }  # fmt: skip

    repeat()
    logits = read_results(manifest, folder / "all" / RESULTS, len(features))
    both = [np.stack([logits[name][index] for name in OUTPUTS]) for index in range(len(features))]
    samples.save_logits(case["folder"], OURS, both, features)
    sidebyside.serve({"artefact": manifest.artefact.format, "warm_up_batches": WARM_UP_BATCHES}, repeat)


def run_onnxruntime(case: dict[str, Any]) -> None:
    """Worker: batches of that shape in ONNX Runtime; the median batch of each repetition counts."""
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
    counts = {
        "batches": len(feeds), "windows": sum(len(batch.samples) for batch in batches),
        "real_tokens": sum(int((batch.arrays["sequence_ids"] > 0).sum()) for batch in batches),
    }  # fmt: skip

    def repeat() -> dict[str, Any]:
        before, seconds = sidebyside.processor_seconds(), []
        for feed in feeds:
            start = time.perf_counter()
            session.run(list(OUTPUTS), feed)
            seconds.append(time.perf_counter() - start)
        used = sidebyside.processor_seconds() - before
        return {"seconds": median(seconds), "cpu_seconds": used / len(feeds), **counts}

    logits: list = [None] * len(features)
    for batch, feed in zip(batches, feeds, strict=True):
        for sample, values in unpack_tokens(
            batch, np.stack(session.run(list(OUTPUTS), feed), axis=-1), features.lengths
        ):
            logits[sample] = values.T
    samples.save_logits(case["folder"], PEER, logits, features)
    sidebyside.serve({"artefact": "onnx"}, repeat)


def make_models(folder: Path, args: argparse.Namespace, packed: bool, length: int, random_base: bool) -> None:
    """Write the model for both runtimes below `folder`: hf/ (the weights), model.onnx and lite/."""
    if random_base:
        model = samples.make_random_base(args.weights, args.seed, folder / "hf")
    else:
        model = samples.make_model(args.weights, args.seed, folder / "hf")
    _write_onnx(model, folder / "model.onnx", packed, args.rows, length)
    sidebyside.run_module(
        "models.bert.export", "--export_ckpt_file", folder / "hf", "--export_file_name", folder / "lite" / "model",
        "--file_format", "MINDIR_LITE", "--export_batch_size", args.rows, "--max_seq_length", length, "--packed",
        str(packed).lower(), "--max_samples_per_row", MAX_SAMPLES, "--doc_stride", length // 3, "--verify", "false",
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
    length = min(length, samples.sequence_length(args))
    features = samples.draw(args, length, training=False)
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), args, packed, length, random_base)
        case = {"features": features, "packed": packed, "length": length, "rows": args.rows, "threads": args.threads}
        work = {"batches": 1, "positions": args.rows * length}
        names = [OURS, PEER]
        summary = sidebyside.measure("benchmarks.cpp_vs_onnxruntime", args, case, names, work, Path(folder))
        return summary | {
            "samples": samples.describe(features, length), "logits": samples.compare_logits(folder, names),
        }  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    samples.add_flags(parser, samples=64)
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which shapes and models")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        name, case = sidebyside.worker_setup(args)
        run_cpp(case) if name == OURS else run_onnxruntime(case)
        return
    report = sidebyside.Report("benchmarks.cpp_vs_onnxruntime", args, argv)
    samples.settle(args, ("rows",))
    for name in args.cases:
        report.add(name, measure(name, args))


if __name__ == "__main__":
    run_main(main)
