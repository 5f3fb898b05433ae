"""Decoding in advance and on demand give the same pixels; unreadable images are reported or counted."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reid.data.augmentation.augment import Augmentation
from reid.data.augmentation.jitter import Jitter
from reid.data.images.cache import decode_images
from reid.data.images.pixels import DecodedImages, ImageFiles, Images, move_to_device
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.samplers import Sampler
from reid.errors import InputError

SIZE = (48, 24)
LABELS = np.arange(30, dtype=np.int64) % 8
AUGMENTATION = Augmentation(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.5, 4, 0.5, Jitter(0.2, 0.2, 0.2, 0.1), "trivialaugment"
)


@pytest.fixture
def paths(tmp_path, make_image) -> list[str]:
    files = [tmp_path / f"{index:03d}.jpg" for index in range(30)]
    for index, file in enumerate(files):
        make_image(file, index, (24, 48) if index % 3 else (40 + index, 90))  # some are resized
    return [str(file) for file in files]


def train_loader(images: Images, **options) -> TrainLoader:
    settings = {"batch_size": 8, "augmentation": AUGMENTATION, "device": "cpu", "sampler": Sampler("identity")}
    return TrainLoader(images, LABELS, **{**settings, **options})


def decode(paths: list[str], tmp_path: Path, broken: dict[int, str] | None = None, limit: int = 2**30) -> DecodedImages:
    cache = tmp_path / "cache"
    images = decode_images(paths, size=SIZE, cache=cache, in_memory_limit=limit, progress=False, corrupt=broken)
    return DecodedImages(images, broken or {})


def everything(loader: TrainLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenate two epochs and a sample."""
    batches = [*loader.epoch(1), *loader.epoch(2), *loader.sample(20, 3)]
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@pytest.mark.parametrize("threads", [1, 3])
def test_decoding_every_time_gives_the_pixels_of_the_cache(tmp_path, paths, threads):
    images, labels = everything(train_loader(decode(paths, tmp_path)))
    others, same = everything(train_loader(ImageFiles(paths, SIZE, threads)))
    assert torch.equal(images, others) and torch.equal(labels, same)


def test_a_mapped_array_and_one_on_a_device_give_the_same_pixels(tmp_path, paths):
    plain = everything(train_loader(decode(paths, tmp_path)))
    mapped = decode(paths, tmp_path, limit=0)
    assert isinstance(mapped.pixels, np.memmap)
    moved = move_to_device(mapped, torch.device("cpu"), "on")
    assert isinstance(moved.pixels, torch.Tensor)
    for images in (mapped, moved):
        assert all(torch.equal(one, other) for one, other in zip(everything(train_loader(images)), plain, strict=True))


def test_test_images_are_the_same_too(tmp_path, paths):
    def batches(images: Images) -> torch.Tensor:
        return torch.cat(list(TestLoader(images, LABELS, LABELS, paths, 8, AUGMENTATION.mean, AUGMENTATION.std, "cpu")))

    decoded = batches(decode(paths, tmp_path))
    assert torch.equal(batches(ImageFiles(paths, SIZE, 2)), decoded)
    assert torch.equal(batches(move_to_device(decode(paths, tmp_path), torch.device("cpu"), "on")), decoded)


def test_the_device_of_the_decoded_images(tmp_path, paths, monkeypatch):
    images, cpu, gpu = decode(paths, tmp_path), torch.device("cpu"), torch.device("cuda")
    assert move_to_device(images, cpu, "auto") is move_to_device(images, cpu, "off") is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.pixels.nbytes, 0))
    assert move_to_device(images, gpu, "auto") is images  # it would take more than a third
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.pixels.nbytes - 1, 0))
    with pytest.raises(InputError, match=r"INPUT\.DEVICE_CACHE on: 0 MiB of images do not fit into cuda"):
        move_to_device(images, gpu, "on")


def test_no_thread_is_left_behind(paths):
    epoch = train_loader(ImageFiles(paths, SIZE, 3)).epoch(0)
    next(epoch)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    epoch.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "prefetch"))]


def cut(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-60])


@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_that_becomes_corrupt_during_training_is_named(paths, threads):
    epoch = train_loader(ImageFiles(paths, SIZE, threads), batch_size=4, sampler=Sampler()).epoch(0)
    next(epoch)
    for path in paths:
        cut(path)
    with pytest.raises(InputError, match=r"0\d\d\.jpg: unreadable or truncated image"):
        list(epoch)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_skipped_images_are_counted_and_replaced_by_others_of_their_identity(tmp_path, paths, caplog, limit):
    for number in (3, 11, 5):
        cut(paths[number])
    with pytest.raises(InputError, match=r"00[35]\.jpg"):
        decode(paths, tmp_path)
    decoded = train_loader(decode(paths, tmp_path, {}, limit), on_corrupt="skip")
    assert sorted(decoded.skipped) == [3, 5, 11] and "003.jpg" in decoded.skipped[3]
    files = train_loader(ImageFiles(paths, SIZE, 2), on_corrupt="skip")
    caplog.set_level(logging.WARNING)
    caplog.clear()
    for one, other in zip(everything(decoded), everything(files), strict=True):
        assert torch.equal(one, other)
    assert files.skipped == decoded.skipped
    assert [record.message.split(": ")[0][-7:] for record in caplog.records].count("003.jpg") == 1
    assert "skipped in training, 3 so far" in caplog.records[-1].message

    # 3 and 11 are of one person, whose next readable image is 19; the labels of all batches are what they were
    plain = train_loader(
        ImageFiles(paths, SIZE), on_corrupt="skip", augmentation=replace(AUGMENTATION, policy="none", jitter=Jitter())
    )
    whole, labels = map(torch.cat, zip(*plain.sample(30, 0), strict=True))
    assert labels.tolist() == LABELS.tolist()
    assert torch.equal(whole[3], whole[19]) and torch.equal(whole[11], whole[19]) and torch.equal(whole[5], whole[13])
    assert not torch.equal(whole[4], whole[12])


def test_an_identity_without_readable_images_is_replaced_by_another_with_its_label(paths):
    for number in range(3, 30, 8):
        cut(paths[number])
    loader = train_loader(ImageFiles(paths, SIZE), on_corrupt="skip")
    labels = torch.cat([labels for _, labels in loader.sample(30, 0)]).tolist()
    assert 3 not in labels and len(labels) == 30 and labels[3] == 4


def test_only_unreadable_images_are_an_error(paths):
    for path in paths:
        cut(path)
    with pytest.raises(InputError, match="all 30 training images are unreadable"):
        next(train_loader(ImageFiles(paths, SIZE), on_corrupt="skip").epoch(0))


def test_a_missing_image_is_an_error_even_if_corrupt_ones_are_skipped(paths):
    Path(paths[4]).unlink()
    with pytest.raises(InputError, match=r"004\.jpg: no such image"):
        list(train_loader(ImageFiles(paths, SIZE, 2), on_corrupt="skip").sample(30, 0))


def test_a_test_image_that_cannot_be_read_is_always_an_error(tmp_path, paths):
    cut(paths[20])
    for images in (ImageFiles(paths, SIZE, 2), decode(paths, tmp_path, {})):
        with pytest.raises(InputError, match=r"020\.jpg: unreadable"):
            list(TestLoader(images, LABELS, LABELS, paths, 8, AUGMENTATION.mean, AUGMENTATION.std, "cpu"))
