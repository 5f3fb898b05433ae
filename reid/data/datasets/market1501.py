"""Market-1501 (Zheng et al., ICCV 2015)."""

from __future__ import annotations

import re
from pathlib import Path

from reid.data.datasets.layout import Layout, PartCounts, locate, read_dataset, read_part
from reid.records import ImageRecord, Split

LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    folders=("Market-1501-v15.09.15", "market1501", "Market-1501", "Market1501"),
    archive="Market-1501-v15.09.15.zip",
    pattern=re.compile(r"(?P<identity>-1|\d{1,9})_c(?P<camera>\d{1,4})s\d+_.+"),
    example="0002_c1s1_000451_03.jpg",
    official={
        "train": PartCounts(images=12_936, identities=751, cameras=6),
        "query": PartCounts(images=3_368, identities=750, cameras=6),
        "gallery": PartCounts(images=19_732, identities=750, cameras=6, junk=3_819, distractors=2_798),
    },
    availability="Its authors provide it for research only",
)


def read_market1501(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read Market-1501.

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


def read_hand_labeled_boxes(root: Path, *, cache: Path) -> tuple[ImageRecord, ...]:
    """Read the hand-labeled boxes of `gt_bbox`, which are pooled for multi-query evaluation.

    Args:
        root: Same as for `read_market1501`. `gt_bbox` is not unpacked from a zip.
        cache: Folder in which a zip is unpacked once.

    Returns:
        The images sorted by file name; empty if there is no folder `gt_bbox`.
    """
    folder = locate(LAYOUT, root, cache=cache) / "gt_bbox"
    return read_part(LAYOUT, folder) if folder.is_dir() else ()
