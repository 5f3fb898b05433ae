"""DukeMTMC-reID (Zheng et al., ICCV 2017), withdrawn by its owners in 2019; only existing copies can be read."""

from __future__ import annotations

import re
from pathlib import Path

from reid.data.datasets.layout import Layout, PartCounts, read_dataset
from reid.records import Split

LAYOUT = Layout(
    name="dukemtmcreid",
    title="DukeMTMC-reID",
    folders=("DukeMTMC-reID", "dukemtmc-reid", "dukemtmcreid", "DukeMTMCreID"),
    archive="DukeMTMC-reID.zip",
    pattern=re.compile(r"(?P<identity>-1|\d{1,9})_c(?P<camera>\d{1,4})_f?\d+.*"),
    example="0005_c2_f0046985.jpg",
    official={
        "train": PartCounts(images=16_522, identities=702, cameras=8),
        "query": PartCounts(images=2_228, identities=702, cameras=8),
        "gallery": PartCounts(images=17_661, identities=1_110, cameras=8),
    },
    availability="It was withdrawn by its owners in 2019 and is not downloaded here: only an existing copy can be read",
)


def read_dukemtmcreid(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read DukeMTMC-reID.

    Args:
        root: Folder of the dataset, a folder above it, or the official zip.
        strict: Whether the official counts must hold; otherwise any subset in the same layout is accepted.
        cache: Folder in which a zip is unpacked once.

    Returns:
        Split with training, query and gallery images; counts are checked if `strict`.

    Raises:
        InputError: If the dataset is missing, a file name cannot be parsed, or a count differs.
    """
    return read_dataset(LAYOUT, root, strict=strict, cache=cache)
