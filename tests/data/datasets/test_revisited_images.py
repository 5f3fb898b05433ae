"""Generated landmarks are read back in the published layout; missing parts are reported."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data import read_revisited_images
from reid.data.synthetic import generate_landmarks
from reid.data.synthetic.landmarks import SIZES
from reid.errors import InputError


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_landmarks(tmp_path_factory.mktemp("generated") / "set", size="tiny", progress=False)


@pytest.fixture
def copied(generated: Path, tmp_path: Path) -> Path:
    shutil.copytree(generated, tmp_path / "copy")
    return tmp_path / "copy"


def test_generated_landmarks_have_the_published_structure(generated: Path) -> None:
    content = pickle.loads((generated / "landmarks" / "gnd_landmarks.pkl").read_bytes())
    assert set(content) == {"imlist", "qimlist", "gnd"}
    names = [*content["imlist"], *content["qimlist"]]
    assert len(set(names)) == len(names) == 78
    assert {path.stem for path in (generated / "landmarks" / "jpg").iterdir()} == set(names)
    for truth in content["gnd"]:
        assert set(truth) == {"bbx", "easy", "hard", "junk"} and len(truth["bbx"]) == 4
        assert all(isinstance(truth[kind], np.ndarray) for kind in ("easy", "hard", "junk"))
    sizes = {Image.open(path).size for path in (generated / "landmarks" / "jpg").iterdir()}
    assert len(sizes) > 1


def test_generated_landmarks_are_read_back(generated: Path) -> None:
    data = read_revisited_images(generated, "landmarks")
    size = SIZES["tiny"]
    assert len(data.query) == size.landmarks and len(data.gallery) == size.gallery
    listed: list[int] = []
    for easy, hard, junk in zip(data.truth.easy, data.truth.hard, data.truth.junk, strict=True):
        assert (len(easy), len(hard), len(junk)) == (size.easy, size.hard, size.junk)
        listed += [*easy, *hard, *junk]
    assert len(set(listed)) == len(listed) == size.gallery - size.distractors
    for image, name in zip(data.query, data.truth.queries, strict=True):
        assert Path(image.path) == generated / "landmarks" / "jpg" / f"{name}.jpg"
        assert image.box is not None
        left, top, right, bottom = image.box
        width, height = Image.open(image.path).size
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert (right - left) * (bottom - top) > 0.1 * width * height
    assert all(image.box is None for image in data.gallery)
    inside = read_revisited_images(generated / "landmarks", "landmarks")
    assert (inside.query, inside.gallery) == (data.query, data.gallery)


def test_the_same_seed_gives_the_same_images(generated: Path, tmp_path: Path) -> None:
    again = generate_landmarks(tmp_path / "again", size="tiny", progress=False)
    other = generate_landmarks(tmp_path / "other", size="tiny", seed=1, progress=False)
    files = sorted(path.name for path in (generated / "landmarks" / "jpg").iterdir())
    assert all(
        (again / "landmarks" / "jpg" / name).read_bytes() == (generated / "landmarks" / "jpg" / name).read_bytes()
        for name in files
    )
    truth = (generated / "landmarks" / "gnd_landmarks.pkl").read_bytes()
    assert (again / "landmarks" / "gnd_landmarks.pkl").read_bytes() == truth
    assert (other / "landmarks" / "gnd_landmarks.pkl").read_bytes() != truth
    assert generate_landmarks(again, size="tiny", progress=False) == again
    with pytest.raises(InputError, match="seed 0 instead of 1"):
        generate_landmarks(again, size="tiny", seed=1, progress=False)
    (again / "landmarks" / "jpg" / files[0]).unlink()
    with pytest.raises(InputError, match="jpg contains 77 images instead of 78"):
        generate_landmarks(again, size="tiny", progress=False)
    with pytest.raises(InputError, match="unknown size of the landmarks 'market'"):
        generate_landmarks(tmp_path / "m", size="market", progress=False)
    with pytest.raises(InputError, match="0 or more"):
        generate_landmarks(tmp_path / "m", size="tiny", seed=-1, progress=False)


def test_missing_images_are_counted_and_named(copied: Path) -> None:
    folder = copied / "landmarks" / "jpg"
    data = read_revisited_images(copied, "landmarks")
    for image in (data.query[2], *data.gallery[5:9]):
        Path(image.path).unlink()
    first = [Path(image.path).name for image in (data.query[2], *data.gallery[5:7])]
    with pytest.raises(InputError) as caught:
        read_revisited_images(copied, "landmarks")
    message = str(caught.value)
    assert f"{folder}: 5 of the 78 images" in message and f"missing: {', '.join(first)}, ...;" in message
    assert "\n" not in message


def test_a_name_cannot_leave_the_folder(copied: Path) -> None:
    path = copied / "landmarks" / "gnd_landmarks.pkl"
    content = pickle.loads(path.read_bytes())
    shutil.copy(copied / "landmarks" / "jpg" / f"{content['imlist'][0]}.jpg", copied / "outside.jpg")
    content["imlist"][0] = "../../outside"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"1 of the 78 images .* \.\./\.\./outside\.jpg"):
        read_revisited_images(copied, "landmarks")


def test_invalid_folders_are_reported(copied: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; it must contain roxford5k/gnd_roxford5k\.pkl"):
        read_revisited_images(copied / "nowhere", "roxford5k")
    with pytest.raises(InputError, match=r"unknown dataset in .* 'landmark'; did you mean landmarks"):
        read_revisited_images(copied, "landmark")
    (copied / "landmarks" / "gnd_landmarks.pkl").rename(copied / "kept.pkl")
    with pytest.raises(InputError, match=r"gnd_landmarks\.pkl is missing"):
        read_revisited_images(copied, "landmarks")
    with pytest.raises(InputError, match="no folder rparis6k"):
        read_revisited_images(copied, "rparis6k")
    (copied / "kept.pkl").rename(copied / "landmarks" / "gnd_landmarks.pkl")
    shutil.rmtree(copied / "landmarks" / "jpg")
    with pytest.raises(InputError, match="jpg: no such folder"):
        read_revisited_images(copied, "landmarks")
