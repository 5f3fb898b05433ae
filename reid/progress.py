"""Progress bars on a terminal; nothing where stdout or stderr is none, such as in a log.

All open bars share one display, which draws them under each other, below everything that is printed meanwhile.
"""

from __future__ import annotations

import contextlib
import operator
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

# Seconds until a bar appears: a shorter job needs none.
DELAY = 1.0
# Seconds between two drawings.
INTERVAL = 0.5

_lock = threading.RLock()
_bars: list[Bar] = []
_display: Any = None  # rich.progress.Progress while one of the bars is drawn
_drawn = 0.0


class Bar:
    """A running job. What it is created with may be changed later.

    Args:
        title: What is done.
        total: Number of units of the whole job, 0 if it is unknown.
        unit: What they are, such as "batches".
        done: Number of finished units.

    Attributes:
        note: Further text, such as the training loss.
    """

    def __init__(self, title: str, total: int, unit: str = "", done: int = 0) -> None:
        self.title, self.total, self.unit, self.done, self.note = title, total, unit, done, ""
        self._start, self._begin = done, time.monotonic()
        self._moved = self._begin

    def advance(self, count: int = 1, note: str = "") -> None:
        """Record finished units, and draw the bars again if it is time.

        Args:
            count: How many more units are finished.
            note: Replaces `note`, unless it is empty.
        """
        self.done, self.note, self._moved = self.done + count, note or self.note, time.monotonic()
        if self._moved >= _drawn + INTERVAL:
            _draw(self._moved)

    def skip(self, count: int) -> None:
        """Record units that were finished earlier, in a time that is unknown.

        Args:
            count: Their number.
        """
        self.done += count
        self._start += count

    def seconds_left(self, now: float | None = None) -> float | None:
        """Estimate how long the job still takes, from the units that it has finished since it was opened.

        Args:
            now: Time of `time.monotonic`; the present if None.

        Returns:
            Seconds, or None if no unit is finished yet, or the number of units is unknown.
        """
        finished = self.done - self._start
        if finished <= 0 or not self.total:
            return None
        left = (self._moved - self._begin) / finished * (self.total - self.done)
        return max(0.0, left - ((time.monotonic() if now is None else now) - self._moved))


@contextlib.contextmanager
def progress_bar(title: str, total: int, *, unit: str = "", done: int = 0, shown: bool = True) -> Iterator[Bar]:
    """Show the progress of what is done in the context, if it takes a while.

    Args:
        title: What is done.
        total: Number of units of the whole job, 0 if it is unknown.
        unit: What they are, such as "batch".
        done: Number of units that were finished earlier.
        shown: Whether to show it, where there is a terminal.

    Yields:
        The bar, to be advanced.
    """
    bar = Bar(title, total, unit, done)
    if not (shown and is_terminal()):
        yield bar
        return
    with _lock:
        _bars.append(bar)
    try:
        yield bar
    finally:
        with _lock:
            _bars.remove(bar)
            _clear(bar)


def track(
    items: Iterable[Item], title: str, *, total: int | None = None, unit: str = "", shown: bool = True
) -> Iterator[Item]:
    """Iterate with a progress bar.

    Args:
        items: What is iterated over.
        title: What is done.
        total: Their number, if `items` does not know it.
        unit: What they are.
        shown: As in `progress_bar`.

    Yields:
        The items.
    """
    with progress_bar(title, total or operator.length_hint(items), unit=unit, shown=shown) as bar:
        for item in items:
            yield item
            bar.advance()


def is_terminal() -> bool:
    """Return whether someone is watching: a file or a pipe keeps whole lines only.

    Returns:
        Whether stdout and stderr are terminals.
    """
    # While bars are drawn, the streams are proxies, which earlier versions of rich take for no terminals.
    return _display is not None or (sys.stdout.isatty() and sys.stderr.isatty())


def format_seconds(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: Its length.

    Returns:
        Such as `1:05` or `2:03:00`.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _draw(now: float) -> None:
    """Draw the bars that have been open for a while."""
    global _display, _drawn
    with _lock:
        _drawn = now
        bars = [bar for bar in _bars if now - bar._begin >= DELAY]
        if not bars:
            return
        if _display is None:
            _display = _open()
        tasks = {task.fields["bar"]: task.id for task in _display.tasks}
        for bar in bars:
            status = f"{bar.done:,}{f'/{bar.total:,}' if bar.total else ''} {bar.unit}".strip()
            left = bar.seconds_left(now)
            parts = (status, bar.note, "" if left is None else f"{format_seconds(left)} left")
            shown = {"description": bar.title, "completed": bar.done, "total": bar.total or None}
            shown["status"] = ", ".join(filter(None, parts))
            if bar in tasks:
                _display.update(tasks[bar], **shown)
            else:
                _display.add_task(bar=bar, **shown)
        _display.refresh()


def _open() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    class Terminal(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # never hidden, since a process that is killed could not show it again

    # Without a thread that refreshes: a forked worker would inherit its locks.
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(None),
        TextColumn("{task.fields[status]}", markup=False),
        console=Terminal(file=sys.stderr),
        auto_refresh=False,
        transient=True,
        expand=True,
    )
    display.start()
    return display


def _clear(bar: Bar) -> None:
    """Remove a closed bar, and the display after the last one."""
    global _display
    if _display is None:
        return
    drawn = [task.id for task in _display.tasks if task.fields["bar"] is bar]
    for task in drawn:
        _display.remove_task(task)
    if not _bars:
        display, _display = _display, None
        display.stop()
    elif drawn:
        _display.refresh()
