"""Running an exported model in MindSpore Lite, through the C++ program of ascend310_infer."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import read_json
from models.common.packing import PER_TOKEN, Samples
from models.common.runtime.offline import read_results, write_samples
from models.common.runtime.timing import PERCENTILES

BUILD_SCRIPT = Path(__file__).resolve().parents[3] / "ascend310_infer" / "build.sh"
RESULTS, TIMING = "result_Files", "time_Result/timing.json"


def build_program() -> Path:
    """Build the C++ program if it is not up to date and return its path.

    Raises `UserError` when that fails: no compiler, no MindSpore Lite, or an installation without the C++ sources.
    """
    if not BUILD_SCRIPT.is_file():
        raise UserError("the C++ program is not part of an installed package; work in a clone of the repository")
    done = subprocess.run(["bash", str(BUILD_SCRIPT)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the C++ program could not be built: {done.stderr.strip()}")
    return Path(done.stdout.strip().splitlines()[-1])


class MindSporeLiteRuntime:
    """Feature set -> logits, by the exported model in a folder with its manifest."""

    def __init__(self, export_folder: Path | str, program: Path | None = None) -> None:
        """program: the built C++ program; None builds it."""
        self.folder = Path(export_folder)
        self.program = program or build_program()
        self.seconds, self.latency = 0.0, {}

    def predict(self, samples: Samples) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample.

        Afterwards `seconds` and `latency` are what the program measured, with reading and writing of its files.
        """
        manifest = read_manifest(self.folder)
        lengths = np.diff(samples.starts)
        with tempfile.TemporaryDirectory() as scratch:
            write_samples(manifest, samples, scratch)
            command = [
                str(self.program), "--manifest", str(self.folder), "--input_dir", scratch, "--output_dir", scratch,
                "--device_type", "CPU", "--warmup", "0",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                message = done.stderr.strip() or f"stopped by signal {-done.returncode}"
                raise UserError(f"MindSpore Lite could not run {self.folder}: {message}")
            results = read_results(manifest, Path(scratch) / RESULTS, len(lengths))
            timing = read_json(Path(scratch) / TIMING)
        self.seconds = timing["total_seconds"]
        self.latency = {f"p{percent}": timing["batch_ms"][f"p{percent}"] for percent in PERCENTILES}
        return {
            output.name: [
                values[:length] if output.per == PER_TOKEN else values
                for values, length in zip(results[output.name], lengths, strict=True)
            ]
            for output in manifest.outputs
        }
