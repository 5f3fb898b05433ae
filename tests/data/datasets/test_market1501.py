"""The file names of the real Market-1501, if available."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from reid.data import DATASETS, split_table
from reid.errors import InputError
from reid.records import Split


@pytest.fixture(scope="module")
def market(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Path]:
    """The files of the archive without their content, which is not read."""
    cache = tmp_path_factory.mktemp("market")
    with zipfile.ZipFile(real_data / "Market-1501-v15.09.15.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
    for folder in {Path(name).parent for name in names}:
        (cache / folder).mkdir(parents=True)
    for name in names:
        (cache / name).touch()
    return DATASETS["market1501"](cache, cache=cache), cache


def test_the_real_dataset_passes_its_strict_counts(market):
    split, _ = market
    assert (len(split.train), len(split.query), len(split.gallery)) == (12_936, 3_368, 19_732)
    assert {image.camera for image in split.gallery} == set(range(1, 7))
    assert sum(image.identity == -1 for image in split.gallery) == 3_819
    assert sum(image.identity == 0 for image in split.gallery) == 2_798
    assert sorted(split.train_labels().values()) == list(range(751))
    assert "12,936" in split_table(split)


def test_a_removed_image_is_noticed_and_a_subset_accepted_on_request(market):
    split, cache = market
    Path(split.train[0].path).unlink()
    folder = Path(split.train[0].path).parent.parent
    with pytest.raises(InputError, match="train has 12,935 images, not 12,936"):
        DATASETS["market1501"](folder, cache=cache)
    assert len(DATASETS["market1501"](folder, strict=False, cache=cache).train) == 12_935
