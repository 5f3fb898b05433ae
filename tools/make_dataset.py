"""The command `svdnet dataset`, run from a clone: `reid/commands/dataset.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("dataset"))
