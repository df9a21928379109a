"""What a measured number depends on: processor, threads, versions, command and date. Imports no framework."""

import argparse
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from models.common.cli import run_main
from models.common.files import write_json
from models.common.machine import cpu

PACKAGES = (
    "mindspore", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "paddlepaddle", "numpy", "encoder-zoo",
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[1]


def record(module: str, argv: list[str] | None = None, threads: int | None = None) -> dict[str, Any]:
    """Describe this run for its JSON file; `module` is the dotted name it was started by, `threads` what it was given.

    To be called when the run starts: `load_average` (1, 5, 15 minutes) then tells whether other work shared the cores.
    Read ratios, not seconds, when it did.
    """
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)]),
        "commit": _git_commit(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "niceness": os.nice(0),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _git_commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="JSON file to write")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the record to a file."""
    args = parse(argv)
    write_json(args.output, record("benchmarks.environment", argv))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    run_main(main)
