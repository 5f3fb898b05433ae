"""What one request may take, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """upload_bytes: of an image. seconds: to send it in. answers: to a search. waiting: searches that may wait for the
    one that runs. side: pixels of the longer side of a picture in the page.
    """

    upload_bytes: int = 10_000_000
    seconds: float = 30.0
    answers: int = 100
    waiting: int = 8
    side: int = 256


class Refused(Exception):
    """A request that is not answered: the status of HTTP, and one line for the one who asked."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line
