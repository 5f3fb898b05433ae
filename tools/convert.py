"""The command `svdnet convert`, run from a clone: `reid/commands/convert.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("convert"))
