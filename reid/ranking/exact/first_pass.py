"""The first pass over query x gallery: every squared distance approximately, with a proven bound on the error.

Two ways, chosen by what the rows were prepared for: a float32 product, or products of 8-bit integers, which hardware
with such instructions runs about eight times as fast. For the latter a row is written as scale * (high + low / 254)
with two integers in -127 .. 127 a number; three integer products (high high, and high low + low high as one of twice
the width) are exact, and what is left out is bounded by Cauchy-Schwarz. docs/ranking.md derives both bounds.

Approximated is not the distance d but d - |q|^2 = |g|^2 - 2 q.g of the centered rows: nothing is added for each query.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import arrays
from reid.ranking.distance import refuse_broken
from reid.ranking.exact import bounds

# Columns summed by one float32 product; the partial sums are then added, which keeps the error bound small.
COLUMNS = 1024
# low counts 254ths of the scale, so that it stays within -127 .. 127.
LOW = 254
# Longest row of highs, so that 254 * high.high + high.low + low.high stays within int32.
_LONGEST_HIGH = 2500.0
# Rounding makes a row of highs longer by up to sqrt(width) / 2; beyond this width that would reach too far.
_WIDEST = 1 << 16
# Numbers quantized at once, so that the steps find them in the cache.
_CACHE_NUMBERS = 1 << 16


@dataclass(frozen=True)
class Rows:
    """Rows prepared for the first pass.

    values: (n, D) float32, the rows less the center; -2 times that for a gallery, which costs no rounding. squared,
    lengths: (n,) float64, squared lengths and lengths of the rows less the center, on the host. limbs: None, or
    (n, 2 D) int8, the highs before the lows for queries and after them for a gallery, with, (n,) float64, their scale,
    and residual and low, the lengths of what the two limbs leave out and of scale * low / 254.
    """

    values: Any
    squared: np.ndarray
    lengths: np.ndarray
    limbs: Any = None
    scale: np.ndarray | None = None
    residual: np.ndarray | None = None
    low: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> Rows:
        cut = [None if part is None else part[rows] for part in (self.limbs, self.scale, self.residual, self.low)]
        return Rows(self.values[rows], self.squared[rows], self.lengths[rows], *cut)

    def without_limbs(self) -> Rows:
        """The same for float32 products."""
        return Rows(self.values, self.squared, self.lengths)


@dataclass(frozen=True)
class Approximation:
    """values: (b, T) float32, d - |q|^2 within half_width: (b,) float64. integers: whether 8-bit products made them."""

    values: Any
    half_width: np.ndarray
    integers: bool = False


def prepare(values: Any, centre: Any, *, side: str, integers: bool, numbers: np.ndarray | None = None) -> Rows:
    """Rows (n, D), floating, of the "query" or the "gallery", less `center` (D,) float32.

    integers: add 8-bit limbs. numbers: (n,) what errors call the rows, where not 0 .. n - 1.
    Raises InputError for rows with NaN or infinity, or too long for float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told by its row
        centered = arrays.as_type(values - centre, "float32")
        squared = _squared_lengths(centered)
    if len(squared) and not squared.max() <= np.finfo(np.float32).max / 16:
        _refuse(squared, values, side, np.arange(len(squared)) if numbers is None else numbers)
    rows = Rows(centered, squared, np.sqrt(squared))
    if integers and len(squared):
        rows = _with_limbs(rows, side=side)
    if side == "gallery":
        centered *= -2.0
    return rows


def _refuse(squared: np.ndarray, values: Any, side: str, numbers: np.ndarray) -> None:
    refuse_broken(values, side, numbers)
    row = int(np.nan_to_num(squared, nan=np.inf).argmax())
    raise InputError(
        f"{side} feature row {numbers[row]} has a squared distance of {squared[row]:.3g} from the mean of the queries, "
        "too large for float32 distances; has the training diverged? Otherwise divide all features by a constant, "
        "which keeps the ranking"
    )


def _squared_lengths(values: Any) -> np.ndarray:
    """(n, D) float32 -> (n,) float64."""
    if arrays.is_tensor(values):
        return arrays.host((values.double() ** 2).sum(1))
    squared = np.empty(len(values))
    step = max(1, _CACHE_NUMBERS // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        part = values[start : start + step].astype(np.float64)
        np.einsum("ij,ij->i", part, part, out=squared[start : start + step])
    return squared


def _with_limbs(rows: Rows, *, side: str) -> Rows:
    """Add the limbs, each row with the scale that its largest number allows."""
    values, width = rows.values, rows.values.shape[1]
    largest = np.maximum(arrays.largest(values), 1e-30)
    inverse = np.minimum(127.0 / largest, _LONGEST_HIGH / np.maximum(rows.lengths, 1e-30))
    # What is rounded is the inverse, downwards; the scale is then its exact inverse.
    inverse = np.nextafter(inverse.astype(np.float32), np.float32(0))
    scale = 1.0 / inverse.astype(np.float64)
    factor = arrays.like(inverse, values)[:, None]
    limbs = arrays.empty((len(values), 2 * width), "int8", values)
    halves = limbs[:, :width], limbs[:, width:]
    highs, lows = halves if side == "query" else halves[::-1]
    residual, low = np.empty(len(values)), np.empty(len(values))
    step = len(values) if arrays.is_tensor(values) else max(1, _CACHE_NUMBERS // max(1, width))
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
        low[part] = arrays.host(_lengths(rounded))
        residual[part] = arrays.host(_lengths(rest))
    # These lengths were summed in float32; the factor covers that, the terms after it the rounding of `rest`.
    slack = 1.0 + 2 * bounds.gamma(width)
    left_out = (residual * slack + 128 * bounds.U * np.sqrt(width)) * scale / LOW + 1.01 * bounds.U * rows.lengths
    return Rows(values, rows.squared, rows.lengths, limbs, scale, left_out, low * slack * scale / LOW)


def _lengths(rows: Any) -> Any:
    return (rows * rows).sum(1).sqrt() if arrays.is_tensor(rows) else np.sqrt(np.einsum("ij,ij->i", rows, rows))


def approximate(query: Rows, tile: Rows, buffers: dict[str, Any], *, columns: int = COLUMNS) -> Approximation:
    """d - |q|^2 of every pair, by integers where both sides have limbs. `buffers` is kept from call to call.

    query: (b, D), tile: (T, D). columns: how many one float32 product sums; fewer make the bound closer. The result's
    values live in a buffer: the caller may change them, the next call does.
    """
    longest = float(tile.lengths.max(initial=0.0))
    width = query.values.shape[1]
    moved = bounds.centered_distance(query.lengths, longest, width)
    shape = (len(query.squared), len(tile.squared))
    values = _buffer(buffers, "values", shape, "float32", query.values)
    squared = arrays.like(tile.squared.astype(np.float32), values)
    if _by_integers(query, tile):
        missed = _integer_products(query, tile, longest, values, squared, buffers)
        return Approximation(values, missed + bounds.added(query.lengths, longest) + moved, integers=True)
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
    return Approximation(values, product + bounds.added(query.lengths, longest) + moved)


def _by_integers(query: Rows, tile: Rows) -> bool:
    if query.limbs is None or tile.limbs is None or not len(tile.squared):
        return False
    # Shapes that cuBLAS takes.
    return not arrays.is_tensor(query.limbs) or (len(query.squared) > 16 and len(tile.squared) % 8 == 0)


def _integer_products(
    query: Rows, tile: Rows, longest: float, values: Any, squared: Any, buffers: dict[str, Any]
) -> np.ndarray:
    """values = |g|^2 - 2 q.g by the limbs; (b,) float64, how far -2 q.g may be off."""
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
    step = len(values) if arrays.is_tensor(values) else max(1, _CACHE_NUMBERS * 4 // max(1, shape[1]))
    for start in range(0, len(values), step):
        # Types are converted by copying: an operation on mixed types would allocate, and memory that is new is slow.
        part = slice(start, start + step)
        result[part].copy_(mixed[part].add_(high[part], alpha=LOW))
        result[part].mul_(rows[part]).mul_(columns).add_(added)
    rest, low = float(tile.residual.max()), float(tile.low.max())
    missed = query.residual * longest + (query.lengths + query.residual) * rest + query.low * low
    # Five roundings to float32: of the sum, of the two scales, and of the two products with them.
    return 2 * missed + 5.1 * bounds.U * 2 * query.lengths * longest * 1.001


def _integer_product(first: Any, second: Any, buffers: dict[str, Any], name: str, shape: tuple[int, int]) -> Any:
    """first @ second.T of int8, as an int32 tensor in a buffer."""
    import torch

    out = _buffer(buffers, name, shape, "int32", first)
    tensors = [torch.as_tensor(part) for part in (first, second, out)]
    torch._int_mm(tensors[0], tensors[1].T, out=tensors[2])
    return tensors[2]


def _buffer(buffers: dict[str, Any], name: str, shape: tuple[int, int], dtype: str, other: Any) -> Any:
    """Memory of `shape`, kept from call to call in one piece."""
    numbers = shape[0] * shape[1]
    if name not in buffers or len(buffers[name]) < numbers:
        buffers[name] = arrays.empty((numbers,), dtype, other)
    return buffers[name][:numbers].reshape(shape)


@functools.lru_cache(maxsize=16)
def integers_exact(width: int, device: str = "cpu") -> bool:
    """Whether this machine has 8-bit products of that width, and they are exact.

    Instructions that saturate their 16-bit sums are found by products of the largest numbers.
    """
    import torch

    if width > _WIDEST or (device != "cpu" and width % 8):  # cuBLAS wants whole groups of eight
        return False
    first, second = _extremes(width, device)
    for columns in (width, 2 * width):
        try:
            found = torch._int_mm(first[:, :columns], second[:, :columns].T)
        except (RuntimeError, AttributeError):  # no such product on this device or in this build
            return False
        # Every second row is the same.
        few = first[:2, :columns].double() @ second[:2, :columns].double().T
        if not torch.equal(found.double(), few.repeat(len(first) // 2, len(second) // 2)):
            return False
    return True


def _extremes(width: int, device: str) -> tuple[Any, Any]:
    """Two int8 matrices (256, 2 width) and (1024, 2 width) of the largest numbers, of two rows in turn each."""
    import torch

    first = torch.full((256, 2 * width), 127, dtype=torch.int8, device=device)
    second = torch.full((1024, 2 * width), -127, dtype=torch.int8, device=device)
    first[::2, ::3], second[::2, ::5] = -127, 127
    return first, second


@functools.lru_cache(maxsize=16)
def integers_pay(width: int, device: str = "cpu") -> bool:
    """Whether 8-bit products of that width are exact on this machine and, all three, faster than the float32 product.

    Measured once a process, in some milliseconds.
    """
    import time

    import torch

    if not integers_exact(width, device):
        return False
    first, second = _extremes(width, device)

    def integers() -> Any:
        torch._int_mm(first[:, :width], second[:, :width].T)
        return torch._int_mm(first, second.T)

    floats = [torch.ones(len(rows), width, device=device) for rows in (first, second)]
    seconds = []
    for product in (integers, lambda: floats[0] @ floats[1].T):
        times = []
        for _ in range(4):
            start = time.perf_counter()
            product()
            if device != "cpu":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
    return seconds[0] < 0.7 * seconds[1]
