"""What a run reports while it goes: metrics.jsonl, TensorBoard events, and a picture of the curves."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.common.errors import UserError
from models.common.files import atomic_write, write_text

SMOOTHING = 0.95  # of the loss curve in the picture


class MetricsLog:
    """One JSON line per training step and per evaluation, in `<folder>/metrics.jsonl` and TensorBoard's `tb/`."""

    def __init__(self, folder: Path, completed_steps: int) -> None:
        """`completed_steps`: what a former process logged behind this step will be run again and is cut off."""
        from tensorboardX import SummaryWriter

        self.path = folder / "metrics.jsonl"
        kept = [entry for entry in read_metrics(self.path) if entry["step"] <= completed_steps]
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tb"), purge_step=completed_steps + 1)

    def write(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        """Log `values` of `group` ("train" or "eval") after `step` completed steps."""
        # JSON has no infinity: what overflowed under loss scaling is null.
        sound = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "group": group, **sound}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Flush both files."""
        self._file.close()
        self._board.close()


class NoLog:
    """Takes what a `MetricsLog` takes, and keeps nothing: for workers beside the one that writes."""

    def write(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl; a last line cut off by a kill is dropped, any other damage is an error."""
    if not path.is_file():
        return []
    entries = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not valid JSON; move the file away to go on") from None
    return entries


def plot_curves(metrics_path: Path, picture: Path, title: str, scores: Sequence[str]) -> None:
    """Draw the loss of every step, smoothed, the learning rate, and `scores` of the evaluations, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = read_metrics(metrics_path)
    steps = [entry for entry in entries if entry["group"] == "train"]
    evaluations = [entry for entry in entries if entry["group"] == "eval"]
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True, height_ratios=(3, 1))
    x = [entry["step"] for entry in steps]
    loss = [math.nan if entry["loss"] is None else entry["loss"] for entry in steps]
    top.plot(x, loss, color="tab:blue", alpha=0.25, label="loss of a step")
    top.plot(x, _smoothed(loss), color="tab:blue", label=f"smoothed ({SMOOTHING})")
    top.set_ylabel("loss")
    top.set_title(title)
    top.grid(alpha=0.3)
    if evaluations:
        right = top.twinx()
        for name, colour in zip(scores, ("tab:orange", "tab:green", "tab:red", "tab:purple"), strict=False):
            # Evaluations of before a resume may have had other scores.
            values = [math.nan if entry.get(name) is None else entry[name] for entry in evaluations]
            right.plot([entry["step"] for entry in evaluations], values, "o-", color=colour, label=name)
        right.set_ylabel("score")
        right.legend(loc="center right")
    top.legend(loc="upper right")
    bottom.plot(x, [entry["learning_rate"] for entry in steps], color="tab:gray")
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    bottom.grid(alpha=0.3)
    figure.tight_layout()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def _smoothed(values: list[float]) -> list[float]:
    """Exponential moving average without the pull of its start value."""
    average, weight, result = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = SMOOTHING * average + (1 - SMOOTHING) * value
            weight = SMOOTHING * weight + (1 - SMOOTHING)
        result.append(average / weight if weight else math.nan)
    return result
