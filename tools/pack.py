"""The command `svdnet pack`, run from a clone: `reid/commands/pack.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("pack"))
