"""Write a trained network as .safetensors, without the training state of its checkpoint."""

from __future__ import annotations

import argparse

from reid.errors import InputError
from reid.inference.conversion import load_any, pack_checkpoint
from reid.io.safetensors_files import save_safetensors


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    target = arguments.target
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a packed network must be a .safetensors file")
    if target.exists() and not arguments.force:
        raise InputError(f"{target}: already exists; give another path, or --force")
    content = load_any(arguments.source)
    content = pack_checkpoint(content, classifier=not arguments.no_classifier, source=str(arguments.source))
    save_safetensors(target, content)
    print(f"wrote {target}, {target.stat().st_size / 1e6:.2f} MB")
