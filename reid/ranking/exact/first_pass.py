"""The first pass over query x gallery: every squared distance approximately, with a proven bound on the error.

There are two ways, depending on what the rows were prepared for: a float32 product, or products of 8-bit integers,
which run about eight times as fast on hardware with such instructions. For the latter a row is written as
scale * (high + low / 254) with two integers in -127 .. 127 per number. Three integer products (high high, and high low
+ low high as one of twice the width) are exact, and the remainder is bounded by Cauchy-Schwarz. docs/ranking.md derives
both bounds.

The approximated quantity is not the distance d but d - |q|^2 = |g|^2 - 2 q.g of the centered rows, so that nothing is
added per query.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import arrays
from reid.ranking.distance import check_finite
from reid.ranking.exact import bounds

# Columns summed by one float32 product; the partial sums are then added, which keeps the error bound small.
COLUMNS = 1024
# low counts 254ths of the scale, so that it stays within -127 .. 127.
LOW = 254
# Largest length of a row of highs, so that 254 * high.high + high.low + low.high stays within int32.
_MAX_HIGH_LENGTH = 2500.0
# Rounding makes a row of highs longer by up to sqrt(width) / 2; beyond this width that would reach too far.
_MAX_WIDTH = 1 << 16
# Numbers quantized at once, so that they stay in the cache.
_CACHE_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class PreparedRows:
    """Rows prepared for the first pass.

    Attributes:
        values: (n, D) float32 rows minus the center; -2 times that for a gallery, which costs no rounding.
        squared: (n,) float64 squared lengths of the centered rows, in host memory.
        lengths: (n,) float64 lengths of the centered rows.
        limbs: (n, 2 D) int8, the highs before the lows for queries and after them for a gallery, or None.
        scale: (n,) float64 scale of the limbs.
        residual: (n,) float64 length of the part of a row that its two limbs do not represent.
        low: (n,) float64 length of scale * low / 254.
    """

    values: Any
    squared: np.ndarray
    lengths: np.ndarray
    limbs: Any = None
    scale: np.ndarray | None = None
    residual: np.ndarray | None = None
    low: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> PreparedRows:
        cut = [None if part is None else part[rows] for part in (self.limbs, self.scale, self.residual, self.low)]
        return PreparedRows(self.values[rows], self.squared[rows], self.lengths[rows], *cut)

    def without_limbs(self) -> PreparedRows:
        """Drop the limbs.

        Returns:
            The same rows for float32 products.
        """
        return PreparedRows(self.values, self.squared, self.lengths)


@dataclass(frozen=True)
class Approximation:
    """Approximate distances of a block of queries to a tile of the gallery.

    Attributes:
        values: (b, T) float32, approximations of d - |q|^2.
        half_width: (b,) float64 bounds on their error.
        integers: Whether they were computed with 8-bit products.
    """

    values: Any
    half_width: np.ndarray
    integers: bool = False


def prepare_rows(
    values: Any, center: Any, *, side: str, integers: bool, numbers: np.ndarray | None = None
) -> PreparedRows:
    """Center rows and prepare them for the first pass.

    Args:
        values: (n, D) floating array or tensor.
        center: (D,) float32, subtracted from every row.
        side: "query" or "gallery".
        integers: Add 8-bit limbs for integer products.
        numbers: (n,) row numbers in error messages, 0 .. n - 1 by default.

    Returns:
        The prepared rows, on the device of `values`.

    Raises:
        InputError: If rows have NaN or infinity, or are too long for float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a value that is not finite is reported with its row
        centered = arrays.as_type(values - center, "float32")
        squared = _squared_lengths(centered)
    if len(squared) and not squared.max() <= np.finfo(np.float32).max / 16:
        _raise_too_long(squared, values, side, np.arange(len(squared)) if numbers is None else numbers)
    rows = PreparedRows(centered, squared, np.sqrt(squared))
    if integers and len(squared):
        rows = _with_limbs(rows, side=side)
    if side == "gallery":
        centered *= -2.0
    return rows


def _raise_too_long(squared: np.ndarray, values: Any, side: str, numbers: np.ndarray) -> None:
    check_finite(values, side, numbers)
    row = int(np.nan_to_num(squared, nan=np.inf).argmax())
    raise InputError(
        f"{side} feature row {numbers[row]} has a squared distance of {squared[row]:.3g} from the mean of the queries, "
        "too large for float32 distances; has the training diverged? Otherwise divide all features by a constant, "
        "which keeps the ranking"
    )


def _squared_lengths(values: Any) -> np.ndarray:
    """Return the (n,) float64 squared lengths of (n, D) float32 rows."""
    if arrays.is_tensor(values):
        return arrays.to_numpy((values.double() ** 2).sum(1))
    squared = np.empty(len(values))
    step = max(1, _CACHE_ELEMENTS // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        part = values[start : start + step].astype(np.float64)
        np.einsum("ij,ij->i", part, part, out=squared[start : start + step])
    return squared


def _with_limbs(rows: PreparedRows, *, side: str) -> PreparedRows:
    """Add the limbs, each row with the scale that its largest number allows."""
    values, width = rows.values, rows.values.shape[1]
    largest = np.maximum(arrays.max_abs(values), 1e-30)
    inverse = np.minimum(127.0 / largest, _MAX_HIGH_LENGTH / np.maximum(rows.lengths, 1e-30))
    # The inverse is rounded downwards; the scale is then its exact inverse.
    inverse = np.nextafter(inverse.astype(np.float32), np.float32(0))
    scale = 1.0 / inverse.astype(np.float64)
    factor = arrays.like(inverse, values)[:, None]
    limbs = arrays.empty((len(values), 2 * width), "int8", values)
    halves = limbs[:, :width], limbs[:, width:]
    highs, lows = halves if side == "query" else halves[::-1]
    residual, low = np.empty(len(values)), np.empty(len(values))
    step = len(values) if arrays.is_tensor(values) else max(1, _CACHE_ELEMENTS // max(1, width))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        rest = values[part] * factor[part]
        rounded = arrays.rint(rest)
        highs[part] = arrays.as_type(rounded, "int8")
        rest -= rounded
        rest *= LOW
        rounded = arrays.rint(rest)
        lows[part] = arrays.as_type(rounded, "int8")
        rest -= rounded
        low[part] = arrays.to_numpy(_lengths(rounded))
        residual[part] = arrays.to_numpy(_lengths(rest))
    # These lengths were summed in float32; the factor covers that, the terms after it the rounding of `rest`.
    slack = 1.0 + 2 * bounds.gamma(width)
    residual = (residual * slack + 128 * bounds.U * np.sqrt(width)) * scale / LOW + 1.01 * bounds.U * rows.lengths
    return PreparedRows(values, rows.squared, rows.lengths, limbs, scale, residual, low * slack * scale / LOW)


def _lengths(rows: Any) -> Any:
    return (rows * rows).sum(1).sqrt() if arrays.is_tensor(rows) else np.sqrt(np.einsum("ij,ij->i", rows, rows))


def approximate(
    query: PreparedRows, tile: PreparedRows, buffers: dict[str, Any], *, columns: int = COLUMNS
) -> Approximation:
    """Approximate d - |q|^2 of every pair, with integer products if both sides have limbs.

    Args:
        query: b prepared query rows.
        tile: T prepared gallery rows.
        buffers: Memory to reuse; pass the same dict to every call.
        columns: Number of columns per float32 product; fewer give a tighter bound.

    Returns:
        The approximations. Their values are in a buffer: the caller may change them, and the next call overwrites it.
    """
    longest = float(tile.lengths.max(initial=0.0))
    width = query.values.shape[1]
    moved = bounds.centered_distance(query.lengths, longest, width)
    shape = (len(query.squared), len(tile.squared))
    values = _buffer(buffers, "values", shape, "float32", query.values)
    squared = arrays.like(tile.squared.astype(np.float32), values)
    if _by_integers(query, tile):
        error = _integer_products(query, tile, longest, values, squared, buffers)
        return Approximation(values, error + bounds.addition_error(query.lengths, longest) + moved, integers=True)
    chunks = -(-width // columns)
    arrays.matmul(query.values[:, :columns], tile.values[:, :columns].T, values)
    if chunks > 1:
        partial = _buffer(buffers, "partial", shape, "float32", query.values)
        for start in range(columns, width, columns):
            part = slice(start, start + columns)
            arrays.matmul(query.values[:, part], tile.values[:, part].T, partial)
            values += partial
    values += squared
    product = bounds.float32_product(query.lengths, longest, min(width, columns) + chunks)
    return Approximation(values, product + bounds.addition_error(query.lengths, longest) + moved)


def _by_integers(query: PreparedRows, tile: PreparedRows) -> bool:
    if query.limbs is None or tile.limbs is None or not len(tile.squared):
        return False
    # Shapes supported by cuBLAS.
    return not arrays.is_tensor(query.limbs) or (len(query.squared) > 16 and len(tile.squared) % 8 == 0)


def _integer_products(
    query: PreparedRows, tile: PreparedRows, longest: float, values: Any, squared: Any, buffers: dict[str, Any]
) -> np.ndarray:
    """Set `values` to |g|^2 - 2 q.g from the limbs; returns a (b,) float64 bound on the error of -2 q.g."""
    import torch

    assert query.scale is not None and query.residual is not None and query.low is not None
    assert tile.scale is not None and tile.residual is not None and tile.low is not None
    width = query.values.shape[1]
    shape = (len(query.squared), len(tile.squared))
    high = _integer_product(query.limbs[:, :width], tile.limbs[:, width:], buffers, "high", shape)
    mixed = _integer_product(query.limbs, tile.limbs, buffers, "mixed", shape)
    rows = torch.as_tensor(arrays.like((-2 / LOW * query.scale).astype(np.float32), values))[:, None]
    columns, added = (torch.as_tensor(part) for part in (arrays.like(tile.scale.astype(np.float32), values), squared))
    result = torch.as_tensor(values)
    step = len(values) if arrays.is_tensor(values) else max(1, _CACHE_ELEMENTS * 4 // max(1, shape[1]))
    for start in range(0, len(values), step):
        # Types are converted by copying: an operation on mixed types would allocate, and new memory is slow.
        part = slice(start, start + step)
        result[part].copy_(mixed[part].add_(high[part], alpha=LOW))
        result[part].mul_(rows[part]).mul_(columns).add_(added)
    rest, low = float(tile.residual.max()), float(tile.low.max())
    error = query.residual * longest + (query.lengths + query.residual) * rest + query.low * low
    # Five roundings to float32: of the sum, of the two scales, and of the two products with them.
    return 2 * error + 5.1 * bounds.U * 2 * query.lengths * longest * 1.001


def _integer_product(first: Any, second: Any, buffers: dict[str, Any], name: str, shape: tuple[int, int]) -> Any:
    """Compute first @ second.T of int8 as an int32 tensor in a buffer."""
    import torch

    out = _buffer(buffers, name, shape, "int32", first)
    tensors = [torch.as_tensor(part) for part in (first, second, out)]
    arrays.int8_matmul(tensors[0], tensors[1].T, tensors[2])
    return tensors[2]


def _buffer(buffers: dict[str, Any], name: str, shape: tuple[int, int], dtype: str, other: Any) -> Any:
    """Return contiguous memory of `shape` that is reused from call to call."""
    size = shape[0] * shape[1]
    if name not in buffers or len(buffers[name]) < size:
        buffers[name] = arrays.empty((size,), dtype, other)
    return buffers[name][:size].reshape(shape)


@functools.lru_cache(maxsize=16)
def integers_exact(width: int, device: str = "cpu") -> bool:
    """Return whether this machine has exact 8-bit products.

    Products of the largest numbers reveal instructions that saturate their 16-bit sums. The result is cached.

    Args:
        width: Number of dimensions D.
        device: Device that multiplies.

    Returns:
        False if a product is inexact, or `device` has no 8-bit products.
    """
    import torch

    if width > _MAX_WIDTH or (device != "cpu" and width % 8):  # cuBLAS requires multiples of eight
        return False
    first, second = _extremes(width, device)
    products = torch.empty(len(first), len(second), dtype=torch.int32, device=device)
    for columns in (width, 2 * width):
        try:
            arrays.int8_matmul(first[:, :columns], second[:, :columns].T, products)
        except (RuntimeError, TypeError):  # no such product on this device, in this build or version
            return False
        # Every second row is the same.
        expected = first[:2, :columns].double() @ second[:2, :columns].double().T
        if not torch.equal(products.double(), expected.repeat(len(first) // 2, len(second) // 2)):
            return False
    return True


def _extremes(width: int, device: str) -> tuple[Any, Any]:
    """Return int8 matrices (256, 2 width) and (1024, 2 width) of the largest numbers, each of two alternating rows."""
    import torch

    first = torch.full((256, 2 * width), 127, dtype=torch.int8, device=device)
    second = torch.full((1024, 2 * width), -127, dtype=torch.int8, device=device)
    first[::2, ::3], second[::2, ::5] = -127, 127
    return first, second


@functools.lru_cache(maxsize=16)
def is_int8_faster(width: int, device: str = "cpu") -> bool:
    """Return whether the three 8-bit products are exact on this machine and faster than the float32 product.

    Measured once per process, in a few milliseconds.

    Args:
        width: Number of dimensions D.
        device: Device that multiplies.

    Returns:
        False whenever the products are not exact.
    """
    if width > _MAX_WIDTH:
        return False
    first, second = _extremes(width, device)
    # Without the instructions, integers take a hundred times as long, and the test for exactness takes seconds.
    if device == "cpu" and not _keeps_up(first[:16], second[:64], 8, tries=2):
        return False
    return integers_exact(width, device) and _keeps_up(first, second, 1, tries=4)


def _keeps_up(first: Any, second: Any, factor: float, *, tries: int) -> bool:
    """Return whether the 8-bit products take less than 0.7 `factor` of the time of the float32 product in some try."""
    import time

    import torch

    width = first.shape[1] // 2
    products = torch.empty(len(first), len(second), dtype=torch.int32, device=first.device)

    def integers() -> None:
        arrays.int8_matmul(first[:, :width], second[:, :width].T, products)
        arrays.int8_matmul(first, second.T, products)

    def elapsed(product: Callable[[], object]) -> float:
        start = time.perf_counter()
        product()
        if first.device.type != "cpu":
            torch.cuda.synchronize(first.device)
        return time.perf_counter() - start

    floats = [torch.ones(len(rows), width, device=first.device) for rows in (first, second)]
    limit = 0.7 * factor * min(elapsed(lambda: floats[0] @ floats[1].T) for _ in range(4))
    try:
        return any(elapsed(integers) < limit for _ in range(tries))
    except (RuntimeError, TypeError, AttributeError):  # no such product in this build or version
        return False
