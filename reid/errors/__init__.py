"""The errors that a command reports in one line, and signals to stop."""

from __future__ import annotations

import contextlib
import difflib
import errno
import operator
import os
import shlex
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MAX_MESSAGE = 2500  # characters


class InputError(ValueError):
    """An error that the caller can fix; the message says what is wrong, where, and what to do (exit code 2)."""


class Diverged(RuntimeError):
    """The training loss became NaN or infinite (exit code 1)."""


class Interrupted(RuntimeError):
    """The user stopped the run; the message holds the command that resumes it (exit code 130)."""


def unknown_name(kind: str, name: str, known: Collection[str]) -> InputError:
    """Build the error for a name that does not exist.

    Args:
        kind: What the name stands for, such as "metric".
        name: Name that does not exist.
        known: Names that exist, from which similar ones are suggested.

    Returns:
        The error to raise; its message suggests similar names and lists all of them.
    """
    similar = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(similar)}? it " if similar else ""
    return InputError(f"unknown {kind} {name!r}; {guess}must be one of {', '.join(known)}")


def check_count(name: str, value: object, *, minimum: int = 1) -> None:
    """Check that a value is a whole number.

    Args:
        name: What the value is, for the error message.
        value: Must be an int or a NumPy integer, not a bool.
        minimum: Smallest value allowed.

    Raises:
        InputError: If it is something else or too small.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool) and not getattr(value, "shape", ())
    if not whole or operator.index(value) < minimum:  # type: ignore[arg-type]
        raise InputError(f"{name} must be a whole number of at least {minimum}, not {value!r}")


def install_command(extra: str) -> str:
    """Return the command that installs optional dependencies.

    Args:
        extra: Name of the extra of the distribution `svdnet`.

    Returns:
        A shell command: with the folder of the clone if the package is used from one, else with the name of the
        distribution.
    """
    clone = Path(__file__).resolve().parents[2]
    if not (clone / "setup.py").is_file():
        return f"pip install 'svdnet[{extra}]'"
    return f"pip install --editable {shlex.quote(f'{_relative(clone)}[{extra}]')}"


def _relative(folder: Path) -> str:
    return "." if folder == Path.cwd() else str(folder)


class StopSignal:
    """A request to stop by Ctrl-C or SIGTERM, which can be deferred to the end of a training step.

    Outside `held` a signal raises KeyboardInterrupt at once. Inside, it only sets `requested`; the owner looks at it
    between two steps, saves a checkpoint and calls `check`. A second signal ends the process at once with exit code
    130, without saving anything.

    Attributes:
        requested: Whether a signal was received.
    """

    def __init__(self) -> None:
        self.requested = False
        self._held = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Defer KeyboardInterrupt to the end of the block; may be nested.

        Yields:
            None, once; signals received meanwhile are deferred.

        Raises:
            KeyboardInterrupt: If a signal was received inside; raised at the end of the outermost block.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    def check(self) -> None:
        """Stop here if a signal was received.

        Raises:
            KeyboardInterrupt: If `requested` is set.
        """
        if self.requested:
            raise KeyboardInterrupt

    def receive(self, number: int, frame: object) -> None:
        """Handle a signal; the arguments are those of a handler of `signal.signal` and are not used.

        Args:
            number: Signal number; unused.
            frame: Interrupted stack frame.
        """
        if self.requested:
            os._exit(130)
        self.requested = True
        if not self._held:
            raise KeyboardInterrupt
        # Not print, which fails if the signal interrupted another print.
        os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Install a handler for Ctrl-C and SIGTERM inside the block; only the main thread may call this.

    Yields:
        The `StopSignal` that receives both signals.
    """
    stop = StopSignal()
    previous = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM to the end of a short block; a second signal acts at once.

    An exception may otherwise be raised between any two instructions: in a callback from C++ or of a weak reference,
    where it is lost, or between creating a temporary file and the block that removes it. Threads other than the main
    one receive no signals, and run the block as it is.

    Yields:
        None, once; the handler that was installed before is called afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        received.append(number)

    def again() -> None:
        if received:
            signal.raise_signal(received[0])

    with contextlib.ExitStack() as stack:
        stack.callback(again)
        for number, handler in before.items():
            if handler not in (None, signal.SIG_IGN):  # None: installed from C, and cannot be restored
                stack.callback(signal.signal, number, handler)
                signal.signal(number, receive)
        yield


def one_line(message: object) -> str:
    r"""Format a message for a terminal, whatever file names it contains.

    Args:
        message: Anything with a string form.

    Returns:
        One line of at most about 2,500 characters, with control characters escaped (a line break becomes `\n`).
    """
    text = str(message)
    if len(text) > 2 * MAX_MESSAGE:  # cut before escaping: a message may quote many megabytes
        text = text[:MAX_MESSAGE] + text[-MAX_MESSAGE:]
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
