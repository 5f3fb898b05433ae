"""Convert another codebase's checkpoint to one of this project, without executing code in it."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.errors import InputError
from reid.inference.conversion import convert_checkpoint
from reid.io.checkpoint import save_checkpoint
from reid.io.safetensors_files import save_safetensors
from reid.model.foreign import FAMILIES


def main() -> None:
    """Run the command with the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", metavar="IN", type=Path, help="checkpoint of torchreid, fast-reid, reid-strong-baseline or layumi"
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .pth or .safetensors file")
    parser.add_argument("--family", choices=FAMILIES, help="codebase of IN (default: recognized from its weights)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="configuration overrides that IN does not determine, e.g. MODEL.LAST_STRIDE 1",
    )
    arguments = parser.parse_args()
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
    for difference in converted.differences:
        print(f"- {difference}")
    if arguments.overrides:
        print(f"- overridden: {' '.join(arguments.overrides)}")
    print(f"wrote {target}")
