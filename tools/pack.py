"""Write a trained network as .safetensors: smaller than its checkpoint, without the state of its training."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.errors import InputError, run_command
from reid.inference.conversion import load_any, packed
from reid.io.safetensors_files import save_safetensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", type=Path, help="a checkpoint, ours or another codebase's")
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .safetensors")
    parser.add_argument("--no-classifier", action="store_true", help="leave out what only the training identities need")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    arguments = parser.parse_args()
    target = arguments.target
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a packed network is written as .safetensors")
    if target.exists() and not arguments.force:
        raise InputError(f"{target}: there already; give another path, or --force")
    content = packed(load_any(arguments.source), classifier=not arguments.no_classifier, source=str(arguments.source))
    save_safetensors(target, content)
    print(f"written: {target}, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
