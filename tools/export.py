"""The command `svdnet export`, run from a clone: `reid/commands/export.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("export"))
