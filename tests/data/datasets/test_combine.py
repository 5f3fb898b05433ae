"""Several datasets at once, and one to test on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reid.config import build
from reid.config.loading import load_config, parse_config
from reid.data import split_table
from reid.data.datasets.combine import combine
from reid.data.datasets.subset import subset_identities
from reid.errors import InputError
from reid.records import ImageRecord, Split


def made(name: str, persons: int, cameras: int) -> Split:
    """Identities 1..persons train, the next two test; images are named by dataset, identity and camera."""

    def images(*identities: int) -> tuple[ImageRecord, ...]:
        return tuple(ImageRecord(f"{name}/{i}_{c}", i, c) for i in identities for c in range(1, cameras + 1))

    tested = images(persons + 1, persons + 2)
    gallery = (*tested, ImageRecord(f"{name}/junk", -1, 1), ImageRecord(f"{name}/other", 0, 1))
    return Split(name, images(*range(1, persons + 1)), tested, gallery)


SPLITS = {"a": made("a", 3, 2), "b": made("b", 4, 3), "c": made("c", 2, 2)}


def test_one_dataset_is_returned_as_it_is() -> None:
    assert combine(["a"], "", SPLITS.__getitem__) is SPLITS["a"]
    assert combine(["a"], "a", SPLITS.__getitem__) is SPLITS["a"]


@pytest.mark.parametrize(
    ("names", "target", "expected_name"),
    [
        (["a", "b"], "", "a+b -> a"),
        (["a", "b", "c"], "b", "a+b+c -> b"),
        (["a", "b"], "c", "a+b -> c"),
        (["a"], "c", "a -> c"),
    ],
)
def test_numbers_of_datasets_are_disjoint(names: list[str], target: str, expected_name: str) -> None:
    asked = []
    split = combine(names, target, lambda name: asked.append(name) or SPLITS[name])  # type: ignore[func-returns-value]
    tested = SPLITS[target or names[0]]
    assert split.name == expected_name and len(asked) == len(set(asked))
    # What is tested on keeps its numbers, so that its own files still fit.
    assert (split.query, split.gallery) == (tested.query, tested.gallery)
    assert [image.path for image in split.train] == [image.path for name in names for image in SPLITS[name].train]
    owners: dict[tuple[str, int], set[str]] = {}
    persons: dict[int, set[str]] = {}
    for image in (*split.train, *split.query, *split.gallery):
        dataset, _, label = image.path.partition("/")
        owners.setdefault(("camera", image.camera), set()).add(dataset)
        if image.identity > 0:
            owners.setdefault(("identity", image.identity), set()).add(dataset)
            persons.setdefault(image.identity, set()).add(f"{dataset} {label.partition('_')[0]}")
    assert all(len(datasets) == 1 for datasets in owners.values())
    assert all(len(originals) == 1 for originals in persons.values())
    assert len(split.train_labels()) == sum(len(SPLITS[name].train_labels()) for name in names)


def test_the_banner_lists_each_source_also_of_a_subset() -> None:
    split = combine(["a", "b"], "c", SPLITS.__getitem__)
    rows = split_table(split).splitlines()
    assert rows[0] == "a+b -> c"
    cells = [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
    assert cells[0] == ["train", "7", "18", "5"]
    assert cells[1] == ["", "3", "6", "2   (a)"]
    assert cells[2] == ["", "4", "12", "3   (b)"]
    assert cells[3][0] == "query"
    half = split_table(subset_identities(split, 0.5)).splitlines()
    assert sum(int(row.split("|")[1]) for row in half[3:5]) == 4


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        (["a", "b", "a"], "", "a is listed twice"),
        (["market1501", "market1501_500k"], "", "market1501_500k contains the persons of market1501"),
        (["cuhk03np_labelled"], "cuhk03np_detected", "cuhk03np_detected contains the persons of cuhk03np_labelled"),
    ],
)
def test_the_same_persons_twice_are_refused_before_reading(names: list[str], target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        combine(names, target, lambda name: pytest.fail(f"{name} was read"))


MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000501_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["0001_c2s1_000301_01.jpg"],
    "gt_bbox": ["0001_c1s1_001051_01.jpg", "0002_c1s1_000451_04.jpg"],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0055972.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051341.jpg"],
}


@pytest.fixture
def config(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    """A configuration of both datasets, with their files."""
    make_folder(tmp_path / "Market-1501-v15.09.15", MARKET)
    make_folder(tmp_path / "DukeMTMC-reID", DUKE)
    path = tmp_path / "config.yaml"
    path.write_text(f"DATASETS: {{NAME: dukemtmcreid, ROOT: '{tmp_path}', CACHE: '{tmp_path}/cache', STRICT: false}}")
    return path


def test_the_configuration_names_sources_and_target(config: Path) -> None:
    both = build.split(load_config(config, ["DATASETS.NAME", "dukemtmcreid+market1501"]))
    assert both.name == "dukemtmcreid+market1501 -> dukemtmcreid" and len(both.train) == 4
    across = build.split(load_config(config, ["DATASETS.TARGET", "market1501"]))
    assert across.name == "dukemtmcreid -> market1501"
    assert [image.identity for image in across.query] == [1]
    assert {image.identity for image in across.train} == {3}


def test_hand_labeled_boxes_are_those_of_the_target(config: Path) -> None:
    across = load_config(config, ["DATASETS.TARGET", "market1501", "INPUT.SIZE", "[32, 16]", "MODEL.DEVICE", "cpu"])
    boxes = build.pool_loader(across, build.split(across))
    assert boxes is not None and [Path(path).name for path in boxes.paths] == ["0001_c1s1_001051_01.jpg"]
    other = load_config(config, ["DATASETS.NAME", "market1501", "DATASETS.TARGET", "dukemtmcreid"])
    assert build.pool_loader(other, build.split(other)) is None


def test_a_folder_beside_a_dataset_has_a_root_of_its_own(config: Path, make_folder: Callable[..., Path]) -> None:
    make_folder(config.parent / "own", {"anna": ["1_a.jpg", "2_a.jpg"], "bo": ["1_a.jpg", "2_a.jpg"]})
    pairs = ["DATASETS.NAME", "dukemtmcreid+folder", "DATASETS.FOLDER_ROOT", str(config.parent / "own")]
    split = build.split(load_config(config, [*pairs, "DATASETS.PATTERN", "{identity}/{camera}_*"]))
    assert split.name == "dukemtmcreid+folder:own -> dukemtmcreid" and len(split.train) == 4
    with pytest.raises(InputError, match=r"DATASETS\.PATTERN '' is empty"):
        build.split(load_config(config, ["DATASETS.ROOT", "/nowhere", *pairs]))


def test_evaluation_on_another_configuration_replaces_sources_and_target(config: Path) -> None:
    trained = parse_config("DATASETS: {NAME: market1501+cuhk01, TARGET: msmt17}")
    asked = build.evaluation_config(trained, config, [])
    assert build.split(asked).name == "dukemtmcreid"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["DATASETS.NAME", "market1501+cuhk1"], "DATASETS.NAME 'cuhk1' must be one of .*did you mean cuhk01"),
        (["DATASETS.NAME", "market1501+"], "DATASETS.NAME '' must be one of"),
        (["DATASETS.TARGET", "market"], "DATASETS.TARGET 'market' must be one of .*did you mean market1501"),
        (["DATASETS.FOLDER_TEST", "0"], "DATASETS.FOLDER_TEST 0.0 must be"),
        (["MODEL.BACKBONE", "resnet50+resnet18"], "MODEL.BACKBONE 'resnet50.resnet18' must be one of"),
    ],
)
def test_unknown_names_are_reported(pairs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config("", pairs)
