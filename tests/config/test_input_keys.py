"""The keys of the section INPUT: their effect on the same images, and invalid combinations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from reid.config import build, build_data
from reid.config.loading import parse_config
from reid.data.augmentation.jitter import Jitter
from reid.data.augmentation.policy import POLICIES, apply_policy
from reid.data.images.pixels import DecodedImages, ImageFiles
from reid.distributed import ProcessInfo
from reid.errors import InputError
from reid.records import ImageRecord, Split


@pytest.fixture
def data(tmp_path: Path) -> Split:
    records = []
    for number in range(12):
        path = tmp_path / f"{number:02d}.jpg"
        small = np.random.default_rng(number).integers(0, 256, (8, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((32, 64)).save(path)
        records.append(ImageRecord(str(path), number % 4 + 1, number % 2 + 1))
    train = tuple(image for image in records if image.identity < 4)
    rest = tuple(image for image in records if image.identity == 4)
    return Split("synthetic", train, rest[:1], rest)


def config(tmp_path: Path, text: str = "", *pairs: str) -> CfgNode:
    defaults = ["MODEL.DEVICE", "cpu", "INPUT.SIZE", "[48, 24]", "SOLVER.BATCH_SIZE", "4"]
    return parse_config(text, [*defaults, "DATASETS.CACHE", str(tmp_path / "cache"), *pairs])


def all_tensors(settings: CfgNode, data: Split) -> list[torch.Tensor]:
    loaders = build.loaders(settings, data)
    return [
        *(images for images, _ in loaders.train.epoch(0)),
        *(images for images, _ in loaders.train.sample(9, 0)),
        *loaders.query,
        *loaders.gallery,
    ]


def test_a_single_training_identity_is_reported_before_images_are_read(tmp_path, data):
    alone = tuple(ImageRecord("no such file.jpg", 1, camera) for camera in (1, 2))
    with pytest.raises(InputError, match="synthetic: only 1 training identity; at least 2 are required"):
        build.loaders(config(tmp_path), dataclasses.replace(data, train=alone))


def test_the_cache_does_not_change_the_images(tmp_path, data):
    steps = ["INPUT.PAD", "3", "INPUT.ERASING", "0.5", "INPUT.JITTER.HUE", "0.2", "INPUT.POLICY", "autoaugment"]
    decoded = all_tensors(config(tmp_path, "", *steps), data)
    for other in ("INPUT: {CACHE: off}", "INPUT: {CACHE: 'off', THREADS: 1}", "INPUT: {DEVICE_CACHE: on}"):
        for one, same in zip(decoded, all_tensors(config(tmp_path, other, *steps), data), strict=True):
            assert torch.equal(one, same)


def test_each_key_reaches_the_loader(tmp_path, data):
    text = "INPUT: {CACHE: off, THREADS: 3, CORRUPT: skip, POLICY: trivialaugment}"
    jitter = ["INPUT.JITTER.BRIGHTNESS", "0.1", "INPUT.JITTER.CONTRAST", "0.2", "INPUT.JITTER.SATURATION", "0.3"]
    settings = config(tmp_path, text, *jitter, "INPUT.JITTER.HUE", "0.4", "INPUT.JITTER.PROBABILITY", "0.5")
    loader = build.train_loader(settings, data)
    assert isinstance(loader.images, ImageFiles) and loader.images.threads == 3
    assert loader.augmentation.jitter == Jitter(0.1, 0.2, 0.3, 0.4, 0.5)
    assert loader.augmentation.policy == "trivialaugment" and loader.on_corrupt == "skip"
    moved = build.train_loader(config(tmp_path, "INPUT: {DEVICE_CACHE: on}"), data).images
    assert isinstance(moved, DecodedImages) and isinstance(moved.pixels, torch.Tensor)


def test_a_corrupt_image_is_an_error_or_skipped(tmp_path, data):
    broken = Path(data.train[2].path)
    broken.write_bytes(broken.read_bytes()[:-50])
    for cache in ("on", "off"):
        with pytest.raises(InputError, match=f"{broken.name}: unreadable"):
            all_tensors(config(tmp_path, "", "INPUT.CACHE", cache), data)
    decoded, files = (
        build.train_loader(config(tmp_path, "", "INPUT.CACHE", cache, "INPUT.CORRUPT", "skip"), data)
        for cache in ("on", "off")
    )
    for (images, labels), (others, same) in zip(decoded.sample(9, 0), files.sample(9, 0), strict=True):
        assert torch.equal(images, others) and torch.equal(labels, same)
    assert list(decoded.skipped) == list(files.skipped) == [2]


def test_on_and_off_are_strings(tmp_path):
    settings = config(tmp_path, "INPUT: {CACHE: off, DEVICE_CACHE: off}")
    assert settings.INPUT.CACHE == settings.INPUT.DEVICE_CACHE == "off"
    assert parse_config(settings.dump()).INPUT == settings.INPUT
    with pytest.raises(InputError, match=r"INPUT\.CORRUPT must be a string, not True"):
        config(tmp_path, "INPUT: {CORRUPT: on}")


def test_every_policy_can_be_chosen(tmp_path):
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for name in POLICIES:
        config(tmp_path, "", "INPUT.POLICY", name)
        apply_policy(images, name, np.zeros(1))
    with pytest.raises(InputError, match="did you mean randaugment"):
        config(tmp_path, "", "INPUT.POLICY", "randaugmnt")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["INPUT.CACHE", "off", "INPUT.DEVICE_CACHE", "on"], "requires INPUT.CACHE on; set INPUT.DEVICE_CACHE auto"),
        (["INPUT.JITTER.HUE", "0.6"], "INPUT.JITTER.HUE 0.6 must be 0 to 0.5"),
        (["INPUT.JITTER.PROBABILITY", "1.5"], "INPUT.JITTER.PROBABILITY 1.5 must be 0 to 1"),
        (["INPUT.JITTER.BRIGHTNESS", "-0.1"], "INPUT.JITTER.BRIGHTNESS -0.1 must be"),
        (["INPUT.THREADS", "-1"], "INPUT.THREADS -1 must be"),
    ],
)
def test_invalid_values(tmp_path, pairs, message):
    with pytest.raises(InputError, match=message):
        config(tmp_path, "", *pairs)


@pytest.mark.parametrize(
    ("pairs", "processes", "threads"),
    [
        ((), 1, 0),  # as many as PyTorch has when reading starts
        ((), 2, 4),
        (("THREADS", "3"), 2, 3),
        (("THREADS", "3", "INPUT.THREADS", "5"), 2, 5),
        (("INPUT.THREADS", "5"), 1, 5),
    ],
)
def test_threads_that_decode(
    pairs: tuple[str, ...], processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ProcessInfo(world_size=processes, local_world_size=processes)
    monkeypatch.setattr(build_data, "process_info", lambda: here)
    monkeypatch.setattr(build_data, "thread_limit", lambda count: 8 // count)
    config = parse_config("", ["INPUT.CACHE", "off", "MODEL.DEVICE", "cpu", *pairs])
    assert build.test_loader(config, (ImageRecord("a.jpg", 1, 1),)).images.threads == threads


def test_the_threads_of_a_training_do_not_hold_for_its_checkpoint() -> None:
    trained, before = parse_config("", ["THREADS", "3"]), torch.get_num_threads()
    try:
        assert build.evaluation_config(trained, None, ()).THREADS == 0
        assert torch.get_num_threads() == before
        build.use_threads(build.evaluation_config(trained, None, ("THREADS", str(before + 1))))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
