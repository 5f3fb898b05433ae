"""Training on several datasets together and testing on one of them or on another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from reid.errors import InputError
from reid.records import ImageRecord, Split

# Datasets of the same persons -> a common name. Combined, one person would have two identities, and a training person
# of one could be a test person of the other.
SAME_PERSONS = {
    "market1501_500k": "market1501",
    "cuhk03np_labelled": "cuhk03np",
    "cuhk03np_detected": "cuhk03np",
}


def combine(names: Sequence[str], target: str, read: Callable[[str], Split]) -> Split:
    """Combine the training images of several datasets with query and gallery of one.

    The target keeps its identity and camera numbers. Those of the other datasets follow its highest, one dataset after
    the other, so that no number belongs to two datasets.

    Args:
        names: Datasets to train on.
        target: Dataset to test on, one of `names` or another; "" stands for the first of these.
        read: Name -> split, called once per dataset.

    Returns:
        The combined split, with a name such as `market1501+cuhk01 -> dukemtmcreid`; a single dataset is returned as it
        is.

    Raises:
        InputError: If two datasets contain the same persons.
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
    for source in names:
        images = splits[source].train
        if source != target:
            images = tuple(
                dataclasses.replace(image, identity=image.identity + identity, camera=image.camera + camera)
                for image in images
            )
            identity, camera = (max(getattr(image, key) for image in images) for key in ("identity", "camera"))
        train.extend(images)
        sources.append((splits[source].name, min(image.identity for image in images)))
    name = f"{'+'.join(splits[name].name for name in names)} -> {tested.name}"
    return dataclasses.replace(tested, name=name, train=tuple(train), sources=tuple(sources))


def _check_persons(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        persons = SAME_PERSONS.get(name, name)
        if persons in seen:
            same = "is listed twice" if seen[persons] == name else f"contains the persons of {seen[persons]}"
            raise InputError(f"DATASETS: {name} {same}; each person may come from one dataset only")
        seen[persons] = name
