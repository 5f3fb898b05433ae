"""Limits of a request, and the error for a request that is rejected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        upload_bytes: Maximum size of an uploaded image.
        upload_seconds: Maximum duration of an upload.
        max_results: Maximum number of results per search.
        max_queued: Searches that may wait for the one that runs.
        thumbnail_side: Longer side of the images on the page, in pixels.
    """

    upload_bytes: int = 10_000_000
    upload_seconds: float = 30.0
    max_results: int = 100
    max_queued: int = 8
    thumbnail_side: int = 256


class RequestError(Exception):
    """A request that is rejected.

    Args:
        status: HTTP status code.
        message: One line for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
