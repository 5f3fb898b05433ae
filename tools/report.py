"""The command `svdnet report`, run from a clone: `reid/commands/report.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("report"))
