"""The command `svdnet train`, run from a clone: `reid/commands/train.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("train"))
