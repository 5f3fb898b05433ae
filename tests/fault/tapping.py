"""What both fault tests kill by: a count of the operations on files that a process has come to."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

Target = tuple[Any, str]


def kill_at(at: int, before: bool, targets: Sequence[Target]) -> Callable[[], int]:
    """Kill this process at the call number `at` of any of `targets`, just before or after it; 0 only counts them.

    targets: of each function what holds it, and its name. Returns what tells the count.
    """
    done = 0

    def tapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == at and before:
                signal.raise_signal(signal.SIGKILL)
            result = real(*arguments, **options)
            if done == at:
                signal.raise_signal(signal.SIGKILL)
            return result

        return call

    for holder, name in targets:
        setattr(holder, name, tapped(getattr(holder, name)))
    return lambda: done
