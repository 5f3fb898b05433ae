"""A bounded queue for costly work, which runs in worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from reid.search.serve.limits import RequestError

Result = TypeVar("Result")


class WorkQueue:
    """Runs a bounded number of jobs concurrently and queues a bounded number of others.

    Args:
        max_running: Jobs that run concurrently.
        max_queued: Jobs that may wait for them; further ones are rejected.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._capacity, self._occupied = max_running + max_queued, 0
        self._running = asyncio.Semaphore(max_running)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Occupy a slot of the queue, before the request is read.

        Yields:
            None, once, while the slot is occupied.

        Raises:
            RequestError: If the queue is full.
        """
        if self._occupied >= self._capacity:
            raise RequestError(503, "busy: too many searches are waiting; try again in a moment")
        self._occupied += 1
        try:
            yield
        finally:
            self._occupied -= 1

    async def run(self, job: Callable[..., Result], *arguments: object) -> Result:
        """Run a job in a thread as soon as fewer than `max_running` jobs run.

        Args:
            job: The function to call.
            *arguments: Its positional arguments.

        Returns:
            The result of the job.
        """
        async with self._running:
            return await run_in_threadpool(job, *arguments)
