"""The command `svdnet evaluate`, run from a clone: `reid/commands/evaluate.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("evaluate"))
