"""The command `svdnet ranks`, run from a clone: `reid/commands/ranks.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("ranks"))
