"""One after the other: costly work in a thread of its own, and a queue that ends somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from reid.search.serve.limits import Refused

Result = TypeVar("Result")


class Turns:
    """at_once: pieces of work that run side by side. waiting: those beyond that are not turned away."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._most, self._inside = at_once + waiting, 0
        self._running = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in the queue, taken before anything is read. Raises Refused where there is none."""
        if self._inside >= self._most:
            raise Refused(503, "busy: too many searches are waiting; try again in a moment")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, work: Callable[..., Result], *values: object) -> Result:
        """`work(*values)` in a thread, when it is its turn."""
        async with self._running:
            return await run_in_threadpool(work, *values)
