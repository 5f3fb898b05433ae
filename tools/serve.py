"""The command `svdnet serve`, run from a clone: `reid/commands/serve.py`."""

from reid.commands import run

if __name__ == "__main__":
    raise SystemExit(run("serve"))
