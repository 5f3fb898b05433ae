"""The ways in which a command can fail, and the exit codes they become."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator

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


def run_command(main: Callable[[], None]) -> int:
    """Call the main function of a command and turn errors into exit codes and one line on stderr.

    Args:
        main: Function without arguments.

    Returns:
        0 for success; 2 for an error that the user can fix (`InputError`, full disk, missing permission); 1 for a
        diverged training; 130 for an interrupted one. Any other exception is a bug and is not caught.
    """
    try:
        main()
    except InputError as error:
        return _print_error(error, 2)
    except Diverged as error:
        return _print_error(error, 1)
    except Interrupted as error:
        return _print_error(error, 130)
    except KeyboardInterrupt:
        return _print_error("interrupted", 130)
    except OSError as error:
        if error.errno in FULL_DISK:
            return _print_error(f"the disk is full: {error.filename or 'while writing'}; free some space and retry", 2)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _print_error(f"{error.filename}: cannot be read or written: {error.strerror}", 2)
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            return _print_error(f"{error.filename}: {error.strerror}; give another path", 2)
        if error.errno in (errno.EIO, errno.EFBIG, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR):
            return _print_error(f"{error.filename or 'a file'}: {error.strerror}", 2)
        raise
    return 0


def one_line(message: object) -> str:
    r"""Format a message for a terminal, whatever file names it contains.

    Args:
        message: Anything with a string form.

    Returns:
        One line of at most about 2,500 characters, with control characters escaped (a line break becomes `\n`).
    """
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(message))
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"


def _print_error(message: object, code: int) -> int:
    text = one_line(message)
    print(f"error: {text}" if code != 130 else text, file=sys.stderr)
    return code
