"""The command `svdnet retrieve`, run from a clone: `reid/commands/retrieve.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("retrieve"))
