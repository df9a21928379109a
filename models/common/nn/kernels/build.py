"""Compiles the kernels on first use into a cache of the user; later processes load the library from there."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import mindspore

from models.common.files import atomic_write

SWITCH = "ENCODER_ZOO_CPU_KERNELS"  # environment variable: 0 keeps the plain operators
SOURCES = Path(__file__).parent
# No -ffast-math: it would let the compiler assume that there are no NaN, which the loss-scale check must see, and gcc
# before 13 then links start-up code that flushes denormals to zero in the whole process. `omp simd` needs no library.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
         "-fopenmp-simd", "-shared", "-fPIC", "-pthread")  # fmt: skip


class KernelsUnavailable(Exception):
    """Why the kernels cannot be used, in a few words."""


@functools.cache
def library() -> Path | None:
    """The compiled kernels, or None when they are switched off or cannot be built (one line on stderr says why)."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        path = cache_folder() / f"kernels-{_fingerprint()}.so"
        if not path.is_file():
            print(f"compiling CPU kernels into {path} (once, some 10 s)", file=sys.stderr, flush=True)
            _compile(path)
        _check_loads(path)
    except (KernelsUnavailable, OSError) as error:
        print(f"CPU kernels off, training will be slower: {error}", file=sys.stderr, flush=True)
        return None
    return path


def cache_folder() -> Path:
    """Where compiled kernels are kept: encoder_zoo in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "encoder_zoo"


def _command() -> list[str]:
    # The matrix products inside attention are oneDNN's, from the library that MindSpore itself loads.
    onednn = Path(mindspore.__file__).parent / "lib"
    sources = sorted(str(path) for path in SOURCES.glob("*.cc"))
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    return [*compiler, *FLAGS, *sources, f"-L{onednn}", "-l:libdnnl.so.3", f"-Wl,-rpath,{onednn}"]


def _fingerprint() -> str:
    """Changes with the sources, the command and the processor, so that no machine loads code made for another."""
    digest = hashlib.sha256("\0".join(_command()).encode())
    for path in sorted(SOURCES.glob("*.cc")) + sorted(SOURCES.glob("*.h")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(_processor().encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(path: Path) -> None:
    # Two processes may compile at once: each writes a file of its own, and the last rename wins with the same content.
    with atomic_write(path) as temporary:
        try:
            done = subprocess.run([*_command(), "-o", str(temporary)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise KernelsUnavailable(f"no C++ compiler ({_command()[0]}); install g++ or set CXX") from None
        if done.returncode != 0:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise KernelsUnavailable(f"{_command()[0]} failed: {reason}")


def _check_loads(path: Path) -> None:
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsUnavailable(str(error)) from None
