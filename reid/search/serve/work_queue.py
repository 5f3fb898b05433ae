"""A bounded queue for costly work, which runs in threads that do not keep the process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from reid.search.serve.limits import RequestError

Result = TypeVar("Result")

_THREAD_NAME = "reid-serve-work"


class WorkQueue:
    """Runs a bounded number of jobs concurrently and queues a bounded number of others.

    Args:
        max_running: Jobs that run concurrently.
        max_queued: Jobs that may wait for them; further ones are rejected.
        queue_seconds: Duration after which a waiting job is rejected.
        run_seconds: Duration after which the result of a job is no longer waited for. A thread cannot be stopped, so
            the job still counts as running until it ends.
    """

    def __init__(self, max_running: int, max_queued: int, queue_seconds: float, run_seconds: float) -> None:
        self._capacity, self._occupied = max_running + max_queued, 0
        self._running = asyncio.Semaphore(max_running)
        self._queue_seconds, self._run_seconds = queue_seconds, run_seconds

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Occupy a slot of the queue.

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

        Raises:
            RequestError: If it waits or runs for too long.
        """
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._running.acquire()
        except TimeoutError:
            raise RequestError(503, "busy: other searches take too long; try again in a moment") from None
        future = _start(job, *arguments)
        future.add_done_callback(lambda _: self._running.release())
        finished, _ = await asyncio.wait([future], timeout=self._run_seconds)
        if not finished:
            raise RequestError(503, f"too slow: not finished within {self._run_seconds:g} seconds")
        return future.result()


def is_working() -> bool:
    """Check whether a job is running in a thread of this process.

    Returns:
        True while it is, even if nobody waits for its result.
    """
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


def _start(job: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if error is not None:
            future.set_exception(error)
            future.exception()  # not an error if nobody waits for the result anymore
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = job(*arguments)
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=_THREAD_NAME, daemon=True).start()
    return future
