"""The command `svdnet index`, run from a clone: `reid/commands/index.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("index"))
