"""One function over many items by several processes: results in the order of the items, whatever the number of them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from data_tools.tokenization import limit_threads
from models.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items that wait or are worked on, for each worker: so many results are held at most
_function: Callable[[Any], Any]  # of a worker


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function(item)` for each item in order; with one worker in this process, which is free to use all its threads.

    `function` is sent to each worker once. What it raises is raised here, and ends the workers.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # spawn: a fork copies whatever locks the threads of this process hold, MindSpore's for one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (function,)) as pool:
        items = iter(items)
        try:
            running = deque(pool.submit(_call, item) for item in islice(items, AHEAD * workers))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(_call, item) for item in islice(items, 1))
        except BrokenProcessPool:
            raise UserError("a worker process was killed, by want of memory perhaps; take fewer --workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _begin(function: Callable[[Any], Any]) -> None:
    """A worker's beginning: Ctrl-C is the parent's business, and without parent there is none."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
