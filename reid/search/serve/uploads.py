"""Bodies of requests that are received at the same time: limited in number and time, without waiting for slow ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reid.search.serve.limits import RequestError


class Uploads:
    """Limits the number and the duration of uploads.

    Args:
        max_uploads: Uploads at the same time. A further one replaces the oldest, so that slow clients cannot keep
            others from uploading.
        seconds: Maximum duration of an upload.
    """

    def __init__(self, max_uploads: int, seconds: float) -> None:
        self._max_uploads, self._seconds = max_uploads, seconds
        self._active: dict[asyncio.Timeout, None] = {}  # in the order in which they began

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Limit the upload that is received inside the block.

        Yields:
            None, once.

        Raises:
            RequestError: If the upload takes too long or is replaced.
        """
        if len(self._active) >= self._max_uploads:
            oldest = next(iter(self._active))
            del self._active[oldest]
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                oldest.reschedule(asyncio.get_running_loop().time())
        timeout = asyncio.timeout(self._seconds)
        self._active[timeout] = None
        try:
            async with timeout:
                yield
        except TimeoutError:
            if timeout not in self._active:
                raise RequestError(503, "busy: too many uploads at the same time; try again in a moment") from None
            raise RequestError(408, f"too slow: not received within {self._seconds:g} seconds") from None
        finally:
            self._active.pop(timeout, None)
