"""8-bit codes of an index, one file next to each shard, with which exact search reads a fraction of the features.

The codes follow from the features, and a search without them has the same result. A file holds its own digest and that
of the checksums of the rows it was made from; one that is missing, damaged or of other rows is not used, and written
again by the next run of `svdnet index`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.digest import compute_digest
from reid.io.npy import NpzReader
from reid.io.sealing import write_sealed
from reid.ranking.exact.row_codes import RowCodes, encode_rows
from reid.search.gallery.shard_files import ShardLayout

# With fewer rows a search takes a millisecond or two without codes.
CODED_ROWS = 16_384
# Rows at the end of a shard that may be without codes, so that a few new images do not encode the shard again.
_UNCODED_ROWS = 4096
_FORMAT = 1
# Type and shape of every array, for n rows, D dimensions and m directions.
_EXPECTED = {
    "center": (np.float64, "D"),
    "directions": (np.float64, "Dm"),
    "integers": (np.int8, "nm"),
    "scales": (np.float32, "n"),
    "squared": (np.float32, "n"),
    "rest": (np.float32, "n"),
}


def lacks_codes(layout: ShardLayout, number: int, checksums: np.ndarray) -> bool:
    """Return whether the codes of a shard should be written.

    Args:
        layout: Where the shards are.
        number: Number of the shard, from 0.
        checksums: (n,) uint32, the checksums of its rows.

    Returns:
        True for a large shard without codes, or with codes that leave out many rows.
    """
    return len(checksums) >= CODED_ROWS and read_codes(layout, number, checksums)[0] < len(checksums) - _UNCODED_ROWS


def write_codes(layout: ShardLayout, number: int, rows: np.ndarray, checksums: np.ndarray) -> bool:
    """Encode the rows of a shard and write their codes, or that codes of these rows do not pay.

    Args:
        layout: Where the shards are.
        number: Number of the shard, from 0.
        rows: (n, D) float32.
        checksums: (n,) uint32, their checksums.

    Returns:
        Whether codes pay.

    Raises:
        OSError: If the disk is full.
    """
    codes = encode_rows(rows)
    content: dict[str, Any] = {"format": _FORMAT, "rows": len(checksums), "checksums": _digest(checksums)}
    if codes is not None:
        content |= vars(codes)
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    write_sealed(layout.codes_path(number), buffer.getbuffer())
    return codes is not None


def divide_by_codes(
    layout: ShardLayout, shards: Sequence[np.ndarray], checksums: np.ndarray
) -> tuple[list[np.ndarray], list[RowCodes | None]]:
    """Divide shards into rows with codes and rows without.

    Args:
        layout: Where the shards are.
        shards: (n_i, D) float32 memory maps.
        checksums: (n,) uint32, the checksums of all rows.

    Returns:
        Memory maps that together are `shards`, and for each its codes or None.
    """
    parts: list[np.ndarray] = []
    found: list[RowCodes | None] = []
    for number, shard in enumerate(shards):
        first = number * layout.shard_size
        codes = read_codes(layout, number, checksums[first : first + len(shard)])[1]
        count = 0 if codes is None else len(codes)
        for part, its_codes in ((shard[:count], codes), (shard[count:], None)):
            if len(part):
                parts.append(part)
                found.append(its_codes)
    return parts, found


def read_codes(layout: ShardLayout, number: int, checksums: np.ndarray) -> tuple[int, RowCodes | None]:
    """Read the codes of a shard.

    Args:
        layout: Where the shards are.
        number: Number of the shard, from 0.
        checksums: (n,) uint32, the checksums of its rows.

    Returns:
        Number of rows from the first that the file is about, 0 if it cannot be used, and their codes; None also if
        codes of these rows do not pay.
    """
    try:
        with NpzReader(layout.codes_path(number)) as file:
            count, version = (int(file[name]) for name in ("rows", "format"))
            if version != _FORMAT or not 0 < count <= len(checksums):
                return 0, None
            if str(file["checksums"]) != _digest(checksums[:count]):
                return 0, None
            return count, _parse(file, count, layout.dim) if "integers" in file else None
    except (OSError, InputError, KeyError, TypeError, ValueError):
        return 0, None


def _parse(file: NpzReader, count: int, dim: int) -> RowCodes:
    integers = file["integers"]
    width = integers.shape[-1]
    arrays = {"integers": integers, **{name: file[name] for name in _EXPECTED if name != "integers"}}
    for name, (dtype, shape) in _EXPECTED.items():
        sizes = tuple({"n": count, "D": dim, "m": width}[side] for side in shape)
        if arrays[name].dtype != dtype or arrays[name].shape != sizes:
            raise ValueError(f"{name} of the wrong type or size")
    return RowCodes(**arrays, spread=float(file["spread"]), longest=float(file["longest"]))


def _digest(checksums: np.ndarray) -> str:
    return compute_digest(np.ascontiguousarray(checksums, dtype="<u4").tobytes())
