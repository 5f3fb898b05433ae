"""How a command that a test called ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def ok(self) -> Ended:
        assert self.code == 0, self.err
        return self

    def fails(self, message: str, *, alone: bool = False) -> Ended:
        """Told the user of an error: with exit code 2 and `message`, which is `alone` if stderr is that one line."""
        assert self.code == 2 and message in self.err, (self.code, self.err)
        assert not alone or self.err.count("\n") == 1, self.err
        return self


Tool = Callable[..., Ended]
