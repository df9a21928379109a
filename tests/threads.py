"""Workers as threads of one process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from models.common.train.workers import Workers

PATIENCE = 60.0  # seconds that one waits for the others: they are gone, or wait for something else


class Threads:
    """`count` workers, who leave their values and take those of all."""

    def __init__(self, count: int) -> None:
        self.count, self.values = count, [None] * count
        self.barrier = threading.Barrier(count, timeout=PATIENCE)

    def run(self, work: Callable[[Workers], Any]) -> list[Any]:
        """What `work` gives to each of them, all at the same time."""
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(lambda rank: work(_Worker(self, rank)), range(self.count)))


class _Worker(Workers):
    def __init__(self, together: Threads, rank: int) -> None:
        self.together, self.rank, self.size = together, rank, together.count

    def gather(self, values: np.ndarray) -> np.ndarray:
        self.together.barrier.wait()
        self.together.values[self.rank] = values
        self.together.barrier.wait()
        return np.stack(self.together.values)
