"""Several datasets as one: trained on together, tested on one of them or on another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from reid.errors import InputError
from reid.records import ImageRecord, Split

# Datasets that show the same persons, by the name they share: together, one person would have two identities, and
# those who are trained on in one may be tested on in the other.
SAME_PERSONS = {
    "market1501_500k": "market1501",
    "cuhk03np_labelled": "cuhk03np",
    "cuhk03np_detected": "cuhk03np",
}


def combine(names: Sequence[str], target: str, read: Callable[[str], Split]) -> Split:
    """The training images of all datasets in `names`, with query and gallery of `target`.

    target: another dataset, or one of `names`; "" is the first of these. read: name -> split, asked once for each. The
    dataset that is tested on keeps its numbers; identities and cameras of the others follow its highest, source after
    source, so that none is of two datasets. The name of the result tells all of them, such as
    `market1501+cuhk01 -> dukemtmcreid`; one dataset alone is returned as it is. Raises `InputError`.
    """
    target = target or names[0]
    _check_persons([*names, target] if target not in names else list(names))
    splits = {name: read(name) for name in dict.fromkeys((target, *names))}
    tested = splits[target]
    if list(names) == [target]:
        return tested
    everything = (*tested.train, *tested.query, *tested.gallery)
    identity, camera = (max(getattr(image, key) for image in everything) for key in ("identity", "camera"))
    train: list[ImageRecord] = []
    sources = []
    for name in names:
        images = splits[name].train
        if name != target:
            images = tuple(
                dataclasses.replace(image, identity=image.identity + identity, camera=image.camera + camera)
                for image in images
            )
            identity, camera = (max(getattr(image, key) for image in images) for key in ("identity", "camera"))
        train.extend(images)
        sources.append((splits[name].name, min(image.identity for image in images)))
    told = f"{'+'.join(splits[name].name for name in names)} -> {tested.name}"
    return Split(told, tuple(train), tested.query, tested.gallery, tuple(sources))


def _check_persons(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        persons = SAME_PERSONS.get(name, name)
        if persons in seen:
            same = "is given twice" if seen[persons] == name else f"shows the persons of {seen[persons]}"
            raise InputError(f"DATASETS: {name} {same}; each person may come from one dataset only")
        seen[persons] = name
