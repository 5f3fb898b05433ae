"""MSMT17 (Wei et al., CVPR 2018), first version and second, whose faces are blurred: parts by list files."""

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
    obtaining="It comes from its authors, whose terms hold; an archive is to be unpacked by hand",
    marks=tuple(name for names in LISTS.values() for name in names),
)


def read_msmt17(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read MSMT17 from its folder or a folder above it; `Split.name` tells the version, `msmt17_v1` or `msmt17_v2`.

    Training is `list_train.txt` and `list_val.txt` together, as is usual. A line of a list is a path and an identity,
    which counts from 0 in training and in testing again. Here 0 is a distractor and no number is given twice: training
    identities are the published ones plus 1, those of query and gallery follow the highest of these, from 1,042 on.
    The camera is the third number of the file name. Where both versions lie in `root`, the first is read.
    strict: the official counts must hold. Raises `InputError`.
    """
    folder = locate(LAYOUT, root, cache=cache)
    version, places = _version(folder)
    train = _read_lists(folder, LISTS["train"], places[0], first=1)
    first = 1 + max(image.identity for image in train)
    query, gallery = (_read_lists(folder, LISTS[part], places[1], first=first) for part in ("query", "gallery"))
    split = Split(f"msmt17_{version}", train, query, gallery)
    check_matches(split, folder)
    if strict:
        advice = "DATASETS.STRICT False accepts a subset"
        check_counts(split, LAYOUT.official, "the official MSMT17", advice, folder=folder)
    return split


def _version(folder: Path) -> tuple[str, tuple[str, str]]:
    for version, places in VERSIONS.items():
        if all((folder / place).is_dir() for place in places):
            return version, places
    wanted = " nor ".join(f"{train}/ and {test}/" for train, test in VERSIONS.values())
    raise InputError(f"{folder}: MSMT17 without its images, neither {wanted}")


def _read_lists(folder: Path, lists: tuple[str, ...], place: str, *, first: int) -> tuple[ImageRecord, ...]:
    """The images that the lists name, in their order, identity 0 of the lists becoming `first`."""
    records: list[ImageRecord] = []
    missing: list[str] = []
    for path in (folder / name for name in lists):
        for number, line in enumerate(_lines(path), start=1):
            name, _, label = line.rpartition(" ")
            match = LAYOUT.pattern.fullmatch(PurePosixPath(name).name)
            # A label of no more digits than any identity can have: int() is slow on long ones.
            if match is None or not re.fullmatch(r"[0-9]{1,9}", label) or int(match["camera"]) < 1:
                raise InputError(
                    f"{path}, line {number}: {line[:80]!r} is not a path and an identity, such as "
                    f"0000/{LAYOUT.example} 0"
                )
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{path}, line {number}: {name!r} is not below {place}/")
            image = folder / place / name
            if not image.is_file():
                missing.append(str(image))
            records.append(ImageRecord(str(image), first + int(label), int(match["camera"])))
    named = " and ".join(lists)
    if missing:
        raise InputError(f"{missing[0]}: no such image, but {named} names it ({len(missing):,} of {len(records):,})")
    if not records:
        raise InputError(f"{folder}: {named} names no image")
    if len({record.path for record in records}) < len(records):
        raise InputError(f"{folder}: {named} names an image twice")
    return tuple(records)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such list; MSMT17 comes with {', '.join(LAYOUT.marks)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
