"""Limits of requests and connections, and the error for a request that is rejected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of requests and connections.

    A connection is idle unless it has sent the whole head of a request that is not answered yet.

    Attributes:
        upload_bytes: Maximum size of an uploaded image.
        upload_seconds: Maximum duration of an upload.
        max_uploads: Uploads that are received at the same time; a further one replaces the oldest.
        max_results: Maximum number of results per search.
        page_results: Results on a page.
        max_queued: Searches that may wait for the one that runs.
        queue_seconds: Maximum duration of this wait.
        search_seconds: Duration after which the client no longer waits for its search.
        thumbnail_side: Longer side of the images on the page, in pixels.
        idle_seconds: Maximum time in which a connection may be idle, even if it sends parts of a head.
        idle_per_address: Idle connections of one client address; a further one replaces the oldest.
        max_connections: Connections of all clients; a further one replaces the oldest idle one.
    """

    upload_bytes: int = 10_000_000
    upload_seconds: float = 30.0
    max_uploads: int = 16
    max_results: int = 100
    page_results: int = 20
    max_queued: int = 8
    queue_seconds: float = 10.0
    search_seconds: float = 30.0
    thumbnail_side: int = 256
    idle_seconds: float = 10.0
    idle_per_address: int = 32
    max_connections: int = 400


class RequestError(Exception):
    """A request that is rejected.

    Args:
        status: HTTP status code.
        message: One line for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
