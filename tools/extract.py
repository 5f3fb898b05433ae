"""The command `svdnet extract`, run from a clone: `reid/commands/extract.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("extract"))
