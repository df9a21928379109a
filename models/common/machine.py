"""The processor that something was measured on."""

import platform
from pathlib import Path
from typing import Any

# The flags that decide which kernels the runtimes pick.
RELEVANT_CPU_FLAGS = (
    "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def cpu() -> dict[str, Any]:
    """Model name and the relevant instruction set flags, as Linux lists them (ARM has no model name there)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {"model": platform.processor() or platform.machine(), "flags": []}
    lines = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.split("\n\n")[0].splitlines() if ":" in line
    )
    flags = set((lines.get("flags") or lines.get("Features") or "").split())
    return {
        "model": lines.get("model name", platform.machine()),
        "family_model_stepping": [lines.get(key, "") for key in ("cpu family", "model", "stepping")],
        "flags": [flag for flag in RELEVANT_CPU_FLAGS if flag in flags],
    }
