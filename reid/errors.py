"""The ways a command can end badly, and the exit codes they become."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Collection

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


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
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG):
            return _tell(f"{error.filename}: {error.strerror}; give another path", 2)
        raise
    return 0


def _tell(message: object, code: int) -> int:
    print(f"error: {message}" if code != 130 else str(message), file=sys.stderr)
    return code
