"""DukeMTMC-reID (Zheng et al., ICCV 2017), withdrawn by its owners in 2019: read where a user holds a copy."""

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
    obtaining="It was withdrawn by its owners in 2019 and nothing here fetches it: it must be a copy you already hold",
)


def read_dukemtmcreid(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read DukeMTMC-reID from its folder, a folder above it, or its official zip (unpacked once under `cache`).

    strict: the official counts must hold, else any subset in the same layout is taken. Raises `InputError`.
    """
    return read_dataset(LAYOUT, root, strict=strict, cache=cache)
