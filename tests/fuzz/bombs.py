"""Small files that claim to be large ones; and, as a program, what reads each of them under a limit of memory.

`python bombs.py FOLDER` reads all of a folder and prints a JSON object: the file's name, how reading it ended, and by
how many MiB the memory of the process had grown at its highest.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 2**31
MEBI = 2**20


def make(folder: Path, *, inflated: bool) -> None:
    """Write every bomb; inflated: those too that really hold what they claim, which take a minute, and more files."""
    import numpy as np
    import torch

    with zipfile.ZipFile(folder / "claim.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a", "b"):
            file.writestr(f"D/query/{name}.jpg", b"a")
    _claim(folder / "claim.zip", 2**32 - 2)
    with zipfile.ZipFile(folder / "bzip2.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("D/query/a.jpg", b"")
        file.writestr("D/query/b.jpg", bytes(50 * MEBI))
    with zipfile.ZipFile(folder / "entries.zip", "w") as file:
        for number in range(30_000 if inflated else 3000):
            file.writestr(f"D/query/{number}", b"")
    for name, side in (("wide.png", 60_000), ("limit.png", 2**31 - 1)):
        (folder / name).write_bytes(_png(side, side))
    (folder / "text.png").write_bytes(_png(8, 8, text=bytes(20 * MEBI)))
    head = b"\x93NUMPY\x01\x00"
    for name, shape in (("shape.npy", "(10**12, 512)"), ("tall.npy", "(1000000000000, 512)")):
        told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        (folder / name).write_bytes(head + struct.pack("<H", len(told)) + told + bytes(64))
    parts = {f"{part}_{name}": np.arange(4) for part in ("query", "gallery") for name in ("identities", "cameras")}
    np.savez(
        folder / "shape.npz",
        query_values=np.zeros((4, 2), np.float32),
        gallery_values=np.zeros((4, 2), np.float32),
        **parts,
    )
    data = (folder / "shape.npz").read_bytes()
    (folder / "shape.npz").write_bytes(data.replace(b"(4, 2), }        ", b"(10000000, 2), } "))
    model = {"format": 1, "model": {"a": torch.zeros(1)}, "config": "", "num_classes": 2}
    torch.save({**model, "model": {"a": torch.zeros(1).expand(2**40)}}, folder / "expanded.pth")
    torch.save(model, folder / "storage.pth")
    _repack(folder / "storage.pth", _claim_storage)
    if inflated:
        _make_inflated(folder, model, parts)
    torch.save({**model, "config": "[" * 100_000}, folder / "config.pth")
    (folder / "memo.pkl").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    (folder / "shared.pkl").write_bytes(b"\x80\x02]q\0" + b"".join(
        b"](" + b"".join(b"h" + bytes([n]) for _ in range(16)) + b"eq" + bytes([n + 1]) for n in range(40)
    ) + b".")  # fmt: skip
    (folder / "keys.pkl").write_bytes(b"\x80\x02)q\0" + b"".join(
        b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)
    ) + b"}" + b"h" + bytes([60]) + b"K\1s.")  # fmt: skip
    (folder / "empty.pkl").write_bytes(
        pickle.dumps(np.zeros((1, 0)), 2).replace(b"K\x01K\x00", b"J\xff\xff\xff\x7fK\x00")
    )
    aliases = "a: &a [1, 1]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghijklmn", "bcdefghijklmno", strict=True)
    )
    (folder / "aliases.yaml").write_text(aliases)
    (folder / "deep.yaml").write_text("[" * 100_000)
    (folder / "deep.json").write_text("[" * 1_000_000)
    told = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "claim.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + bytes(64))


def _make_inflated(folder: Path, model: dict[str, Any], parts: dict[str, Any]) -> None:
    import numpy as np
    import scipy.io
    import torch

    packed = zipfile.ZipFile(folder / "understated.zip", "w", zipfile.ZIP_DEFLATED)
    with packed, packed.open("D/query/a.jpg", "w") as entry:
        for _ in range(1500):
            entry.write(bytes(MEBI))
    _claim(folder / "understated.zip", 10)
    numbers = np.zeros((4, 50 * MEBI), np.float32)
    np.savez_compressed(folder / "inflated.npz", query_values=numbers, **parts)
    scipy.io.savemat(folder / "inflated_query.mat", {"x": numbers}, do_compression=True)
    torch.save({**model, "model": {"a": torch.from_numpy(numbers)}}, folder / "inflated.pth")
    _repack(folder / "inflated.pth", lambda name, part: part, zipfile.ZIP_DEFLATED)


def _claim(path: Path, size: int) -> None:
    """Have the directory of a zip say that its entries are of so many bytes."""
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 24 : place + 28] = struct.pack("<I", size)
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)


def _png(width: int, height: int, text: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    told = chunk(b"zTXt", b"k\0\0" + zlib.compress(text)) if text else b""
    rows = zlib.compress(bytes((width + 1) * min(height, 8)) if width < 10**6 else b"")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + told + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _repack(path: Path, change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(buffer, "w", kind) as out:
        for entry in good.infolist():
            out.writestr(entry.filename, change(entry.filename, good.read(entry)))
    path.write_bytes(buffer.getvalue())


def _claim_storage(name: str, part: bytes) -> bytes:
    """A storage of a terabyte, and a tensor of all of it: the counts in the pickle are those after the device."""
    if not name.endswith("data.pkl"):
        return part
    place = part.index(b"cpu")
    count = part.index(b"K\x01", place)
    return part[:count] + b"\x8a\x05\0\0\0\0\x40" + part[count + 2 :]


def _read(path: Path) -> object:
    from reid.config.loading import load_config
    from reid.data.datasets.revisited import read_revisited
    from reid.data.images.decode import decode_image
    from reid.inference.conversion import load_network
    from reid.io.archive import extract_zip
    from reid.io.feature_files import read_features
    from reid.io.shards import open_matrix
    from reid.io.state_dicts import read_state_dict

    readers: dict[str, Callable[[Path], Any]] = {
        ".zip": lambda path: extract_zip(path, folders=("query",), cache=path.parent / "cache", progress=False),
        ".png": lambda path: decode_image(str(path), (8, 8)),
        ".npy": open_matrix,
        ".pth": load_network,
        ".pkl": read_revisited,
        ".json": read_revisited,
        ".yaml": load_config,
        ".safetensors": read_state_dict,
    }
    return readers.get(path.suffix, read_features)(path)


def _peak() -> int:
    """The most memory this process has had so far, in bytes, of which `_forget` makes the present one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _forget() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main(folder: Path) -> None:
    import gc

    from reid.errors.command import run_command

    with contextlib.suppress(Exception):
        _read(folder / "none.pth")  # imports everything
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, resource.RLIM_INFINITY))
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        _forget()
        before, start, told = _peak(), time.process_time(), io.StringIO()
        with contextlib.redirect_stderr(told):
            try:
                ended: object = run_command(functools.partial(_read, path))
            except BaseException as error:
                ended = repr(error)[:200]
        found[path.name] = {
            "ended": ended,
            "told": told.getvalue()[:300],
            "MiB": (_peak() - before) // MEBI,
            "seconds": round(time.process_time() - start, 1),
        }
        gc.collect()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
