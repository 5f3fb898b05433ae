"""Files of `torch.save` that would keep PyTorch's unpickler busy, or fill the memory, are refused before it runs."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.io.checkpoint import load_tensors

COLLIDING = 2**61 - 1  # the hash of every multiple is 0


def long(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def double(pair: bytes) -> bytes:
    """Put a pair of twice the value before into the memo, 60 times; the last one has the number 60, `<`."""
    return b"".join(pair % (n, n) + b"q%c" % (n + 1) for n in range(60))


TUPLES = b")q\0" + double(b"h%ch%c\x86")
LISTS = b"]q\0" + double(b"](h%ch%ce")
ORDERED = b"ccollections\nOrderedDict\n"
BYTEARRAY = b"cbuiltins\nbytearray\n"
# What precedes the last instruction is left on the stack.
ATTACKS = {
    "integers that collide": (b"}(" + b"".join(long(i * COLLIDING) + b"N" for i in range(1, 9000)) + b"u", "keys"),
    "very many floats": (
        b"}(" + b"".join(b"G" + struct.pack(">d", i + 0.5) + b"N" for i in range(6000)) + b"u",
        "keys",
    ),
    "tuples of tuples": (TUPLES + b"}h<Ns", "keys"),
    "pairs of an ordered dict": (TUPLES + ORDERED + b"](h<N\x86e\x85R}", "places"),
    "elements of a set": (TUPLES + b"cbuiltins\nset\n](h<e\x85R}", "places"),
    "long equal keys": (b"}" + text("x" * 100_000) + b"Ns", "keys"),
    "a storage called by a tuple": (TUPLES + b"(X\7\0\0\0storageh<tQ}", "keys"),
    "the same argument over and over": (
        ORDERED + b"q\1](" + b"K\1N\x86" * 2000 + b"e\x85q\2R" + b"h\1h\2R" * 20_000 + b"}",
        "very many places",
    ),
    "lists of lists": (LISTS + b"ctorch\nTensor\nh<\x85R}", "very many places"),
    "a terabyte of zeros": (BYTEARRAY + long(10**12) + b"\x85R}", "an unusual call"),
    "a slow encoding": (b"c_codecs\nencode\n" + text("é" * 1000) + text("punycode") + b"\x86R}", "an unusual call"),
    "the same through another function": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + BYTEARRAY + b"ctorch\nTensor\n" + long(10**12) + b"\x85NtR}",
        "an unusual call",
    ),
}


def archive(path: Path, data: bytes) -> Path:
    """A file of `torch.save` with another pickle in it."""
    torch.save({}, path)
    other = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, data if entry.filename.endswith("data.pkl") else source.read(entry))
    path.write_bytes(other.getvalue())
    return path


def legacy(path: Path, data: bytes) -> Path:
    """The same in the format of versions before 1.6."""
    torch.save({}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    empty = pickle.dumps({}, 2)
    before, after = whole[: whole.rindex(empty)], whole[whole.rindex(empty) + len(empty) :]
    path.write_bytes(before + data + after)
    return path


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize("name", ATTACKS)
def test_small_files_that_would_take_long_are_refused_at_once(tmp_path: Path, name: str, write: Any) -> None:
    body, words = ATTACKS[name]
    path = write(tmp_path / "a.pth", b"\x80\2" + body + b".")
    start = time.process_time()
    with pytest.raises(InputError, match=words):
        load_tensors(path)
    assert time.process_time() - start < 2


def test_flags_of_a_numpy_type(tmp_path: Path) -> None:
    class Flagged:
        def __reduce__(self) -> Any:
            return np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63)

    class Scalar:
        def __reduce__(self) -> Any:
            return np.float64(0).__reduce__()[0], (Flagged(), bytes(8))

    path = tmp_path / "a.pth"
    torch.save({"a": Scalar()}, path)
    with pytest.raises(InputError, match=r"requests numpy\.dtype"):
        load_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_programs_store_is_loaded(tmp_path: Path, zipped: bool) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": network.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "optimizer": optimizer.state_dict(),
        "milestones": collections.Counter([40, 70]),
        "by address": {140_000_000_000_000 + 64 * i: i for i in range(500)},
        "other keys": {1.5: 1, (0, "a"): 2, None: 3, True: 4, -1: 5, b"b": 6, torch.float32: 7},
        "values": [{1, 2}, bytearray(b"ab"), b"\xff", 1j, torch.Size([2, 3]), np.float32(0.5), np.bool_(True)],
        "long text": "x" * 100_000,
        "big": 2**127,
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_tensors(tmp_path / "a.pth")
    for key in content.keys() - {"model", "parameter", "optimizer"}:
        assert loaded[key] == content[key]
    assert torch.equal(loaded["parameter"], content["parameter"])
    assert torch.equal(loaded["optimizer"]["state"][0]["momentum_buffer"], network.weight.grad)
