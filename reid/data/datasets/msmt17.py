"""MSMT17 (Wei et al., CVPR 2018), version 1 and version 2 (blurred faces), split by list files."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from reid.data.datasets.layout import Layout, PartCounts, check_counts, check_matches, locate
from reid.errors import InputError
from reid.records import ImageRecord, Split

LISTS = {"train": ("list_train.txt", "list_val.txt"), "query": ("list_query.txt",), "gallery": ("list_gallery.txt",)}
# Version -> folder of the training images, folder of the query and gallery images.
VERSIONS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}

LAYOUT = Layout(
    name="msmt17",
    title="MSMT17",
    folders=("MSMT17_V1", "MSMT17_V2", "MSMT17", "msmt17"),
    archive="",
    pattern=re.compile(r"\d+_\d+_(?P<camera>\d{1,4})_.+"),
    example="0000_000_01_0303morning_0015_0.jpg",
    official={
        "train": PartCounts(images=32_621, identities=1_041, cameras=15),
        "query": PartCounts(images=11_659, identities=3_060, cameras=15),
        "gallery": PartCounts(images=82_161, identities=3_060, cameras=15),
    },
    availability="It is available from its authors under their terms; extract its archive yourself",
    markers=tuple(name for names in LISTS.values() for name in names),
)


def read_msmt17(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read MSMT17.

    The training images are those of `list_train.txt` and `list_val.txt`, as is usual. A line of a list is a path and an
    identity. The published identities start at 0 both in training and in testing. Here 0 is a distractor and numbers
    are unique: training identities are the published ones plus 1, and those of query and gallery follow from 1,042 on.
    The camera is the third number of the file name. If `root` contains both versions, the first is read.

    Args:
        root: Folder of the dataset or a folder above it.
        strict: Whether the official counts must hold; otherwise any subset in the same layout is accepted.
        cache: Unused, as archives are not unpacked.

    Returns:
        The checked split, named `msmt17_v1` or `msmt17_v2`.

    Raises:
        InputError: If the dataset or an image is missing, a line cannot be parsed, or a count differs.
    """
    folder = locate(LAYOUT, root, cache=cache)
    version, folders = _version(folder)
    train = _read_lists(folder, LISTS["train"], folders[0], first=1)
    first = 1 + max(image.identity for image in train)
    query, gallery = (_read_lists(folder, LISTS[part], folders[1], first=first) for part in ("query", "gallery"))
    split = Split(f"msmt17_{version}", train, query, gallery)
    check_matches(split, folder)
    if strict:
        advice = "DATASETS.STRICT False accepts a subset"
        check_counts(split, LAYOUT.official, "the official MSMT17", advice, folder=folder)
    return split


def _version(folder: Path) -> tuple[str, tuple[str, str]]:
    for version, folders in VERSIONS.items():
        if all((folder / name).is_dir() for name in folders):
            return version, folders
    expected = " nor ".join(f"{train}/ and {test}/" for train, test in VERSIONS.values())
    raise InputError(f"{folder}: the images of MSMT17 are missing; found neither {expected}")


def _read_lists(folder: Path, lists: tuple[str, ...], subfolder: str, *, first: int) -> tuple[ImageRecord, ...]:
    """Read the images of the lists in order; identity 0 of the lists becomes `first`."""
    records: list[ImageRecord] = []
    missing: list[str] = []
    for path in (folder / name for name in lists):
        for number, line in enumerate(_lines(path), start=1):
            name, _, label = line.rpartition(" ")
            match = LAYOUT.pattern.fullmatch(PurePosixPath(name).name)
            # The number of digits is limited because int() is slow for long strings.
            if match is None or not re.fullmatch(r"[0-9]{1,9}", label) or int(match["camera"]) < 1:
                raise InputError(
                    f"{path}, line {number}: {line[:80]!r} is not a path and an identity, such as "
                    f"0000/{LAYOUT.example} 0"
                    + ("; cameras count from 1" if match is not None and int(match["camera"]) < 1 else "")
                )
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{path}, line {number}: {name!r} is not below {subfolder}/")
            image = folder / subfolder / name
            if not image.is_file():
                missing.append(str(image))
            records.append(ImageRecord(str(image), first + int(label), int(match["camera"])))
    source = " and ".join(lists)
    if missing:
        raise InputError(
            f"{missing[0]}: no such image, but {source} lists it ({len(missing):,} of {len(records):,} missing)"
        )
    if not records:
        raise InputError(f"{folder}: {source} lists no image")
    if len({record.path for record in records}) < len(records):
        raise InputError(f"{folder}: {source} lists an image twice")
    return tuple(records)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such list; MSMT17 consists of {', '.join(LAYOUT.markers)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
