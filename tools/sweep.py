"""The command `svdnet sweep`, run from a clone: `reid/commands/sweep.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("sweep"))
