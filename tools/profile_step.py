"""The command `svdnet profile`, run from a clone: `reid/commands/profile.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("profile"))
