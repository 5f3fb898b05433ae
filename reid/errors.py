"""The ways a command can end badly, and the exit codes they become."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 2500  # letters of a message


class InputError(ValueError):
    """Something the caller or the machine can put right: the message says what, where and how (exit code 2)."""


def unknown_name(kind: str, name: str, known: Collection[str]) -> InputError:
    """The error for a name outside `known`, with the near ones first: `raise unknown_name("metric", ...)`."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(f"unknown {kind} {name!r}; {guess}known are {', '.join(known)}")


class Diverged(RuntimeError):
    """The training loss became NaN or infinite (exit code 1)."""


class Interrupted(RuntimeError):
    """The user stopped the run; the message holds the command that goes on (exit code 130)."""


class Stop:
    """The wish to end, by Ctrl-C or SIGTERM, which is a KeyboardInterrupt at once outside `held` and waits inside.

    Whoever holds it looks at `wished` between two steps, saves and calls `check`. The second wish ends the process at
    once, with exit code 130 and nothing but what the disk already holds.
    """

    def __init__(self) -> None:
        self.wished = False
        self._held = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No KeyboardInterrupt inside; one at the end where it was wished meanwhile."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt where the end was wished."""
        if self.wished:
            raise KeyboardInterrupt

    def receive(self, number: int, frame: object) -> None:
        """What a signal calls."""
        if self.wished:
            os._exit(130)
        self.wished = True
        if not self._held:
            raise KeyboardInterrupt
        # Not print, which fails where the signal came in the midst of another.
        os.write(2, b"\nending after this step; once more ends at once\n")


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM as a `Stop`, inside; to be called in the main thread."""
    stop = Stop()
    before = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_command(main: Callable[[], None]) -> int:
    """Call `main` and turn the way it ends into an exit code; the mistake is told in one line on stderr.

    Returns 0 when done, 2 for a mistake of the caller's or the machine's (`InputError`, full disk, missing right),
    1 for a diverged training and 130 for an interrupted one. Any other exception is a fault of ours and passes.
    """
    try:
        main()
    except InputError as error:
        return _tell(error, 2)
    except Diverged as error:
        return _tell(error, 1)
    except Interrupted as error:
        return _tell(error, 130)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)
    except OSError as error:
        if error.errno in FULL_DISK:
            return _tell(f"the disk is full: {error.filename or 'while writing'}; free some space and go on", 2)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _tell(f"no right to read or write {error.filename}: {error.strerror}", 2)
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            return _tell(f"{error.filename}: {error.strerror}; give another path", 2)
        if error.errno in (errno.EIO, errno.EFBIG, errno.ESTALE, errno.EMFILE, errno.ENFILE):
            return _tell(f"{error.filename or 'a file'}: {error.strerror}", 2)
        raise
    return 0


def _tell(message: object, code: int) -> int:
    text = one_line(message)
    print(f"error: {text}" if code != 130 else text, file=sys.stderr)
    return code


def one_line(message: object) -> str:
    """The message in one line of bounded length that a terminal shows as it is, whatever names of files stand in it."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(message))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
