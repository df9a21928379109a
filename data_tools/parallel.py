"""Work for several processes whose results do not depend on how many there are."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from data_tools.tokenization import limit_threads
from models.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # how many more items are taken than there are workers, and calls that a process of a crew may have waiting
_function: Callable[..., Any]  # of a worker


def core_count() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function(item)` for each item in order; with one worker in this process, which is free to use all its threads.

    `function` is sent to each worker once. What it raises is raised here, and ends the workers.
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool, items = _pool(workers, function), iter(items)
    try:
        with _deaths_told():
            running = deque(pool.submit(_call, item) for item in islice(items, workers + AHEAD))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(_call, item) for item in islice(items, 1))
    finally:
        pool.shutdown(cancel_futures=True)


class Crew:
    """Objects in so many processes, or in this one if that is enough; each does what it is told in that order.

    makers: make the objects, where they are to live. An error of what was told is raised by a later call.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], workers: int) -> None:
        self._size = len(makers)
        workers = min(workers, self._size)
        self._local = _Objects(makers) if workers == 1 else None
        self._pools = [] if workers == 1 else [_pool(1, _Objects(makers[first::workers])) for first in range(workers)]
        self._waiting: list[deque[Future]] = [deque() for _ in self._pools]

    def __len__(self) -> int:
        return self._size

    def tell(self, number: int, method: str, *arguments: Any) -> None:
        """Have the object of this number do something."""
        if self._local is not None:
            self._local(number, method, *arguments)
            return
        waiting = self._waiting[number % len(self._pools)]
        with _deaths_told():
            waiting.append(self._submit(number, method, *arguments))
            while len(waiting) > AHEAD:
                waiting.popleft().result()

    def ask_all(self, method: str) -> list[Any]:
        """What the method of each object returns, when they have done everything else."""
        if self._local is not None:
            return [self._local(number, method) for number in range(self._size)]
        with _deaths_told():
            for told in chain.from_iterable(self._waiting):
                told.result()
            answers = [self._submit(number, method) for number in range(self._size)]
            return [answer.result() for answer in answers]

    def dismiss(self) -> None:
        """End the processes, whatever is left to do."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def _submit(self, number: int, *call: Any) -> Future:
        return self._pools[number % len(self._pools)].submit(_call, number // len(self._pools), *call)


class _Objects:
    """Objects, each made when it is first called."""

    def __init__(self, makers: Sequence[Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[int, Any] = {}

    def __call__(self, number: int, method: str, *arguments: Any) -> Any:
        if number not in self._made:
            self._made[number] = self._makers[number]()
        return getattr(self._made[number], method)(*arguments)


def _pool(workers: int, function: Callable[..., Any]) -> ProcessPoolExecutor:
    # spawn: a fork copies whatever locks the threads of this process hold, MindSpore's for one.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (function,))


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise UserError("a worker process was killed, by want of memory perhaps; take fewer --workers") from None


def _begin(function: Callable[..., Any]) -> None:
    """A worker's beginning: Ctrl-C is the parent's business, and without parent there is none."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(*arguments: Any) -> Any:
    return _function(*arguments)
