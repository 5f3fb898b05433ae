"""The command `svdnet diagnose`, run from a clone: `reid/commands/diagnose.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("diagnose"))
