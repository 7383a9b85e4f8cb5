"""A map over worker processes that keeps the order and holds few items at a time."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield `items` in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...],
) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, computed by `workers` processes.

    At most two items per worker are under way, so memory does not grow with the number of items. Processes are spawned,
    not forked: the caller may have threads. With `workers` below 2 all happens in this process.

    Args:
        function: picklable; its state is what `initializer(*initargs)` set up once per process.

    Raises:
        concurrent.futures.process.BrokenProcessPool: if a worker dies (for example for lack of memory).
    """
    if workers < 2:
        initializer(*initargs)
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pending: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=initializer, initargs=initargs) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
