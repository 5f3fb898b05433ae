"""The command `svdnet calibrate`, run from a clone: `reid/commands/calibrate.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("calibrate"))
