"""Generate synthetic pedestrians (layout of Market-1501 or DukeMTMC-reID) or landmarks (layout of revisited Oxford)."""

from __future__ import annotations

import argparse
import json

from reid.data.synthetic import generate_dataset, generate_landmarks
from reid.data.synthetic.dataset import METADATA_FILE
from reid.data.synthetic.sheet import contact_sheet
from reid.errors import InputError


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.sheet and (arguments.sheet.suffix.lower() != ".png" or not arguments.sheet.parent.is_dir()):
        raise InputError(f"{arguments.sheet}: --sheet must be the name of a .png file in an existing folder")
    if arguments.sheet and arguments.layout == "revisited":
        raise InputError("--sheet shows pedestrians and cannot be combined with --layout revisited")
    if arguments.layout == "revisited":
        output = generate_landmarks(arguments.output, size=arguments.size, seed=arguments.seed)
        counts = json.loads((output / METADATA_FILE).read_text(encoding="utf-8"))["counts"]
        print(f"{output}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}, seed {arguments.seed}")
        return
    output = generate_dataset(arguments.output, size=arguments.size, layout=arguments.layout, seed=arguments.seed)
    print(f"{output}: size {arguments.size}, layout {arguments.layout}, seed {arguments.seed}")
    print("part    | identities |  images | cameras |  junk | distractors")
    for part, counts in json.loads((output / METADATA_FILE).read_text(encoding="utf-8"))["counts"].items():
        print(
            f"{part:<7} | {counts['identities']:>10,} | {counts['images']:>7,} | {counts['cameras']:>7} "
            f"| {counts['junk']:>5,} | {counts['distractors'] + counts['lone']:>11,}"
        )
    if arguments.sheet:
        contact_sheet(arguments.seed).save(arguments.sheet, optimize=True)
