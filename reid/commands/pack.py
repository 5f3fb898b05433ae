"""Write a trained network as .safetensors, without the training state of its checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.errors import InputError
from reid.inference.conversion import load_any, pack_checkpoint
from reid.io.safetensors_files import save_safetensors


def main() -> None:
    """Run the command with the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", type=Path, help="a checkpoint of this project or of another codebase")
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .safetensors file")
    parser.add_argument("--no-classifier", action="store_true", help="remove the classifier, which only training needs")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    arguments = parser.parse_args()
    target = arguments.target
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a packed network must be a .safetensors file")
    if target.exists() and not arguments.force:
        raise InputError(f"{target}: already exists; give another path, or --force")
    content = load_any(arguments.source)
    content = pack_checkpoint(content, classifier=not arguments.no_classifier, source=str(arguments.source))
    save_safetensors(target, content)
    print(f"wrote {target}, {target.stat().st_size / 1e6:.2f} MB")
