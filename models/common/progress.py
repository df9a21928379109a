"""A progress bar with rate and time left; plain lines where the output is not a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

PLAIN_LINE_SECONDS = 10.0


class Progress:
    """Counts work done. On a terminal a tqdm bar, elsewhere one line every ten seconds and a last one."""

    def __init__(self, label: str, total: int | None = None, unit: str = "it", initial: int = 0) -> None:
        self._plain = not sys.stderr.isatty()
        self._bar = tqdm(
            desc=label, total=total, unit=unit, initial=initial, disable=self._plain, dynamic_ncols=True, leave=True
        )
        self._label, self._total, self._unit, self._initial = label, total, unit, initial
        self._count, self._note = initial, ""
        self._start = self._last_line = time.monotonic()

    def update(self, count: int = 1, **notes: object) -> None:
        """Advance by `count`; `notes` (for example loss=1.2) are shown behind the rate."""
        self._count += count
        if notes:
            self._note = ", ".join(f"{key}={_short(value)}" for key, value in notes.items())
            self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(count)
        if self._plain and time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS:
            self._print_line()

    def close(self) -> None:
        """End the bar, or print the last line."""
        if self._plain:
            self._print_line()
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        seconds = max(self._last_line - self._start, 1e-9)
        rate = (self._count - self._initial) / seconds
        line = f"{self._label}: {self._count}"
        if self._total:
            line += f"/{self._total} {self._unit} ({100 * self._count / self._total:.0f} %), {rate:.1f} {self._unit}/s"
            if rate > 0 and self._count < self._total:
                line += f", {tqdm.format_interval((self._total - self._count) / rate)} left"
        else:
            line += f" {self._unit}, {rate:.1f} {self._unit}/s"
        print(line + (f", {self._note}" if self._note else ""), file=sys.stderr, flush=True)


def track(items: Iterable[Item], label: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield `items` while a progress bar counts them."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.update()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
