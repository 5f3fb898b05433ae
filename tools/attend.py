"""The command `svdnet attend`, run from a clone: `reid/commands/attend.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("attend"))
