"""Convert another codebase's checkpoint to one of this project, without executing code in it."""

from __future__ import annotations

import argparse

from reid.errors import InputError
from reid.inference.conversion import convert_checkpoint
from reid.io.checkpoint import save_checkpoint
from reid.io.safetensors_files import save_safetensors


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    target = arguments.target
    if target.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{target}: a checkpoint must be a .pth or .safetensors file")
    if target.exists():
        raise InputError(f"{target}: already exists and is not overwritten; give another path")
    content, converted = convert_checkpoint(arguments.source, family=arguments.family, overrides=arguments.overrides)
    (save_safetensors if target.suffix == ".safetensors" else save_checkpoint)(target, content)
    recognized = converted.recognized
    height, width = recognized.size
    print(f"{arguments.source}: {converted.architecture} of {converted.family}, {converted.num_classes} classes")
    print(
        f"preprocessing: RGB in [0, 1], {height} x {width} {recognized.resize}, mean {recognized.mean}, "
        f"std {recognized.std}"
    )
    print(f"feature: the Eigenlayer's {converted.feature}")
    for difference in (*converted.notes, *converted.differences):
        print(f"- {difference}")
    if arguments.overrides:
        print(f"- overridden: {' '.join(arguments.overrides)}")
    print(f"wrote {target}")
