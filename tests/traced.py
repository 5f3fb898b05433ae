"""How much memory a call needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any


def traced(call: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result of a call and the most bytes that what it made took at a time, as far as Python traces them."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
