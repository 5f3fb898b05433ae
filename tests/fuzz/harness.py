"""Hostile inputs by the thousand: how they are made, what watches over each, and how many there were.

An input ends well where it is read or refused in one line, as `run_command` tells it. A traceback, more than 20 seconds
of work, more than a gigabyte of memory or a second line fail the test.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid.errors.command import run_command

# Inputs of each target. The short form draws the same ones every time, the long form others each time.
INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
SHORT = 5
SECONDS = 20
MEMORY = 2**30
# How each reading ended, by target; an input may be read by several readers. And the inputs drawn, by test.
ENDINGS: dict[str, Counter[str]] = {}
DRAWN: Counter[str] = Counter()


def fuzz(*strategies: Any, share: float = 1.0, short: int = SHORT, **named: Any) -> Callable[[Any], Any]:
    """`given` with as many inputs as are asked for; share: of them, for a target whose inputs take long."""
    chosen = settings(
        max_examples=max(5, round(share * INPUTS)) if INPUTS else short,
        deadline=None,
        database=None,
        derandomize=not INPUTS,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    def wrap(test: Any) -> Any:
        @functools.wraps(test)
        def counted(*arguments: Any, **keywords: Any) -> None:
            DRAWN[test.__name__] += 1
            test(*arguments, **keywords)

        return chosen(given(*strategies, **named)(counted))

    return wrap


def attempt(target: str, read: Callable[[], Any]) -> Any:
    """What `read()` returns; None where it refuses its input in one line. Everything else fails the test."""
    endings = ENDINGS.setdefault(target, Counter())
    endings["tried"] += 1
    found: list[Any] = []
    told = io.StringIO()
    with _limits(), contextlib.redirect_stderr(told), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = run_command(lambda: found.append(read()))
    if code == 0:
        endings["accepted"] += 1
        return found[0]
    line = told.getvalue().rpartition("error: ")[2]
    assert code == 2 and line.count("\n") == 1 and len(line) < 3000, f"{target}: exit code {code}, {line!r}"
    assert "MemoryError" not in line, f"{target}: refused for want of memory alone: {line}"
    endings["refused"] += 1
    return None


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Seconds of work and bytes of memory that one input may take. A hang without work ends the whole test run."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer after {SECONDS} seconds of work")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(30 * SECONDS, exit=True)
    try:
        with _memory():
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        yield
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statistics.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# Bytes that are lengths, counts and offsets somewhere, and the letters that texts are nested with.
_PIECES = [
    *(bytes([value]) for value in (0, 1, 0x7F, 0x80, 0xFF)),
    *(value.to_bytes(width, order) for value in (0, 1, 255) for width in (2, 4, 8) for order in ("little", "big")),
    *(b"\xff" * width for width in (2, 4, 8)),
    *(b"\x7f" + b"\xff" * width for width in (1, 3, 7)),
    *(b"\xff" * width + b"\x7f" for width in (1, 3, 7)),
    *(b"[" * 40, b"{" * 40, b"(" * 40, b"9" * 40, b"\n", b'"', b"../", b"%s", b"e999", b"-", b"&a ", b"*a"),
]


@st.composite
def mutated(draw: Any, *good: bytes) -> bytes:
    """One of the good examples with pieces of it changed, cut out, doubled, moved or cut off."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4)))):
        place, other = draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("set", "set", "bytes", "bytes", "near", "insert", "remove", "double", "cut")))
        first, last = min(place, other), max(place, other)
        if kind == "set":
            piece = draw(st.sampled_from(_PIECES))
            data[place : place + len(piece)] = piece
        elif kind == "insert":
            data[place:place] = draw(st.sampled_from(_PIECES)) * draw(st.sampled_from((1, 1, 3, 5000)))
        elif kind == "bytes":
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "near":
            del data[place : place + draw(st.integers(1, 8))]
        elif kind == "remove":
            del data[first:last]
        elif kind == "double":
            data[last:last] = data[first:last]
        else:
            del data[place:]
    return bytes(data)


SCRIPT = "<script>alert(1)</script>"
TEXTS = [
    *(
        "",
        " ",
        "a\nb",
        "a\0b",
        "\x1b[2J",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "~",
        "-",
        ".",
        "..",
        "%s%n",
        "{0}",
    ),
    *(SCRIPT, "'\"><img src=x>", r"$\frac$", "$x", "_^", "{{ 7*7 }}", "\ud800", "\U0001f600", "ä" * 300, "a" * 70_000),
    *(
        "1e999",
        "nan",
        "-1",
        "0x" + "f" * 5000,
        "9" * 5000,
        "[" * 200,
        "__import__('os').system('true')",
        "null",
        "True",
    ),
]
NUMBERS = [0, 1, -1, 2, 7, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.0, 0.5, -0.5, 1e-320, 1e300, -1e308]


def texts() -> st.SearchStrategy[str]:
    """Texts that mean something to somebody, and any others."""
    return st.one_of(st.sampled_from(TEXTS), st.text(st.characters(codec=None), max_size=30))


def values() -> st.SearchStrategy[Any]:
    """A value of any kind JSON has, NaN and infinities too."""
    nested: list[Any] = []
    for _ in range(90):
        nested = [nested]
    single = st.one_of(
        st.sampled_from([None, True, False, float("nan"), float("inf"), nested, [], {}, [[]], *NUMBERS]),
        st.integers(-5, 100),
        st.floats(),
        texts(),
    )
    return st.one_of(single, st.lists(single, max_size=4), st.dictionaries(texts(), single, max_size=3))


@st.composite
def altered(draw: Any, good: Any, changes: int = 3) -> Any:
    """A tree of lists and mappings like `good`, with other values at some places, missing or doubled ones."""
    tree = _copied(good)
    for _ in range(draw(st.integers(1, changes))):
        holder, node = None, tree
        key: Any = None
        while isinstance(node, dict | list) and node and draw(st.integers(0, 7)):
            holder, key = node, draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            node = node[key]
        if holder is None:
            continue
        kind = draw(st.sampled_from(("value", "value", "value", "remove", "move")))
        if kind == "remove":
            del holder[key]
        elif kind == "value":
            holder[key] = draw(values())
        else:
            holder[key] = _copied(holder[draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else [0]))])
    return tree


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree
