"""The command `svdnet search`, run from a clone: `reid/commands/search.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("search"))
