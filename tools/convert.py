"""Turn another codebase's checkpoint into one of this project, without executing code in it."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.errors import InputError, run_command
from reid.inference.conversion import convert_checkpoint
from reid.io.checkpoint import save_checkpoint
from reid.io.safetensors_files import save_safetensors
from reid.model.foreign import FAMILIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", type=Path, help="of torchreid, fast-reid, reid-strong-baseline, layumi")
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .pth or .safetensors")
    parser.add_argument("--family", choices=FAMILIES, help="where the tensors should not decide")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="what tensors do not tell, such as MODEL.LAST_STRIDE 1"
    )
    arguments = parser.parse_args()
    target = arguments.target
    if target.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{target}: a checkpoint is written as .pth or .safetensors")
    if target.exists():
        raise InputError(f"{target}: there already; nothing is overwritten, so give another path")
    content, found = convert_checkpoint(arguments.source, family=arguments.family, overrides=arguments.overrides)
    (save_safetensors if target.suffix == ".safetensors" else save_checkpoint)(target, content)
    given = found.recognized
    height, width = given.size
    print(f"{arguments.source}: {found.architecture} of {found.family}, {found.num_classes} classes")
    print(f"preprocessing: RGB, {height} x {width} {given.resize}, mean {given.mean}, std {given.std} of [0, 1]")
    print(f"feature compared: the Eigenlayer's {found.feature}")
    for difference in found.differences:
        print(f"- {difference}")
    if arguments.overrides:
        print(f"- set otherwise: {' '.join(arguments.overrides)}")
    print(f"written: {target}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
