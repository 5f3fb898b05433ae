"""Only what a decoder says about the bytes makes an image corrupt; a machine short of something does not."""

from __future__ import annotations

import base64
import errno
import io
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from reid.data.images import decode
from reid.data.images.cache import decode_images
from reid.data.images.decode import decode_image, read_image
from reid.errors.command import run_command
from reid.io import reading
from reid.io.images import CorruptImage
from reid.report.thumbnails import thumbnails

SHORTAGES = ("EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR", "ESTALE")


@pytest.fixture
def paths(tmp_path: Path, make_image: Any) -> list[str]:
    for index in range(70):
        make_image(tmp_path / f"{index:02d}.jpg", index)
    return [str(tmp_path / f"{index:02d}.jpg") for index in range(70)]


def test_a_thumbnail_of_16_bits_shows_what_the_network_sees(tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    Image.fromarray(np.linspace(0, 65535, 128 * 64).reshape(128, 64).astype(np.uint16)).save(path)
    shown = thumbnails([path])[path]
    assert shown is not None
    with Image.open(io.BytesIO(base64.b64decode(shown.src.partition(",")[2]))) as image:
        assert abs(np.asarray(image).mean() - decode_image(path, (128, 64)).mean()) < 2


@pytest.mark.parametrize("name", SHORTAGES)
def test_a_shortage_stops_and_leaves_no_image_black(
    tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    number, corrupt = getattr(errno, name), dict[int, str]()

    def short(path: Any, *rest: Any, **options: Any) -> Any:
        if str(path) == paths[66]:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, *rest, **options)

    def command() -> None:
        decode_images(paths, size=(64, 32), cache=tmp_path / "c", in_memory_limit=0, progress=False, corrupt=corrupt)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "open", short, raising=False)
        assert run_command(command) == 2
        with pytest.raises(OSError, match=os.strerror(number)):
            thumbnails(paths)
    said = capsys.readouterr().err.partition("\rthumbnails")[0]
    assert paths[66] in said and os.strerror(number) in said and said.strip().count("\n") == 0
    assert corrupt == {} and not [p for p in (tmp_path / "c").iterdir() if p.suffix == ".npy"]
    command()
    assert corrupt == {}


def in_a_fork(action: Callable[[], int]) -> int:
    """The exit code of a process that may set limits for itself."""
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_without_file_descriptors_nothing_is_corrupt(tmp_path: Path, paths: list[str]) -> None:
    def decode_with_few() -> int:
        corrupt: dict[int, str] = {}
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            decode_images(paths, size=(64, 32), cache=tmp_path, in_memory_limit=0, progress=False, corrupt=corrupt)
        except OSError as error:
            return 1 if corrupt or error.errno != errno.EMFILE else 0
        return 1 if corrupt else 0

    assert in_a_fork(decode_with_few) == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_a_decoder_without_memory_is_no_corrupt_image(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(OSError, match=r"Cannot allocate memory.*00\.jpg") as caught:
        read_image(paths[0])
    assert caught.value.errno == errno.ENOMEM


def test_a_corrupt_verdict_without_memory_does_not_count(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path(paths[0]).read_bytes()
    for path, bytes_ in ((paths[0], content[: len(content) // 2]), (paths[1], b"no image")):
        Path(path).write_bytes(bytes_)
        with pytest.raises(CorruptImage):
            read_image(path)
    monkeypatch.setattr(decode, "_has_memory", lambda *_: False)
    for path in paths[:2]:
        with pytest.raises(OSError, match="Cannot allocate memory"):
            read_image(path)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        read_image("upload", b"no image")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space")
def test_sound_images_are_never_corrupt_in_little_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    for name, options in (("a.jpg", {"progressive": True}), ("b.png", {"compress_level": 1}), ("c.webp", {})):
        Image.fromarray(pixels).save(tmp_path / name, **options)

    def decode_with_little() -> int:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for extra in range(0, 2**25, 2**20):
            resource.setrlimit(resource.RLIMIT_AS, (used + extra, -1))
            for name in ("a.jpg", "b.png", "c.webp"):
                try:
                    read_image(str(tmp_path / name))
                except CorruptImage:
                    return 1
                except OSError as error:
                    if error.errno != errno.ENOMEM:
                        return 2
        return 0

    assert in_a_fork(decode_with_little) == 0


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    os.truncate(path, decode.MAX_BYTES + 1)
    monkeypatch.setattr(reading, "open", lambda *_: pytest.fail("opened"), raising=False)
    with pytest.raises(CorruptImage, match="above the limit of 536,870,912"):
        read_image(str(path))
