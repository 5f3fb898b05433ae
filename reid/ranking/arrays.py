"""Operations whose spelling differs between NumPy and PyTorch, so that one algorithm serves both.

`array-api-compat` does not replace it: the array API standard has no counterpart for most of these functions (bit
views, k-th smallest, products into a buffer, row products, rows by index on a device), so the file would be no
shorter, and a dispatched call took about twice as long (roughly 5 instead of 2 microseconds for a small array).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.records import Features

_REAL = ("float", "bfloat", "int", "uint", "bool", "f", "i", "u")  # beginnings of the names of types


def is_tensor(values: Any) -> bool:
    """Return whether an object is a tensor.

    Args:
        values: Any matrix. Everything but a tensor (arrays, memory maps, shards) is read with NumPy.

    Returns:
        True for a `torch.Tensor`, False for a NumPy array or anything else.
    """
    return type(values).__module__.startswith("torch")


def rows_of(values: Any, rows: slice | np.ndarray) -> Any:
    """Select rows of a matrix.

    Args:
        values: (N, D) array, memory map, shards or tensor.
        rows: A slice or (n,) int64 indices.

    Returns:
        (n, D) tensor on the device of `values` if that is a tensor, otherwise an array.
    """
    if is_tensor(values) and not isinstance(rows, slice):
        return values[like(rows, values)]
    selected = values[rows]
    return selected if is_tensor(selected) else np.asarray(selected)


def like(array: np.ndarray, other: Any) -> Any:
    """Convert an array to the kind of another object.

    Args:
        array: Array of any shape.
        other: NumPy array or tensor whose kind and device are used.

    Returns:
        A tensor on the device of `other` if that is a tensor, otherwise `array` itself.
    """
    if not is_tensor(other):
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(other.device)


def to_numpy(values: Any) -> np.ndarray:
    """Convert an array or a tensor to an array in host memory.

    Args:
        values: An array or a tensor on any device.

    Returns:
        The same values as an array, without a copy where possible; bfloat16, which NumPy lacks, as float32.
    """
    if not is_tensor(values):
        return np.asarray(values)
    host = values.detach().cpu()
    return (host.float() if str(host.dtype) == "torch.bfloat16" else host).numpy()


def as_matrix(values: Any, name: str) -> Any:
    """Accept what NumPy can read as a matrix, such as a list of rows.

    Args:
        values: An array, a tensor, shards, or nested lists of numbers.
        name: Name of the rows in error messages.

    Returns:
        `values` if it has a shape, otherwise an array.

    Raises:
        InputError: If it is no matrix of real numbers.
    """
    if hasattr(values, "shape"):
        kind = str(getattr(values, "dtype", "")).removeprefix("torch.")
        if not kind.lstrip("<>=|").startswith(_REAL):
            raise InputError(f"{name} features of type {kind}: they must be real numbers, such as float32")
        return values
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2:
        raise InputError(f"{name} features: a {type(values).__name__} that is no (N, D) matrix of numbers")
    return matrix


def on_host(features: Features) -> Features:
    """Copy the rows of features from a GPU, if they are there.

    Args:
        features: Features of any kind.

    Returns:
        The same features; rows that are in memory, mapped or in shards stay where they are.
    """
    return dataclasses.replace(features, values=to_numpy(features.values)) if is_tensor(features.values) else features


def all_rows(values: Any) -> np.ndarray:
    """Read a whole matrix into host memory.

    Args:
        values: (N, D) array, memory map, shards or tensor.

    Returns:
        (N, D) array; `values` itself if it is one.
    """
    return to_numpy(rows_of(values, slice(None)))


def as_type(values: Any, dtype: str) -> Any:
    """Convert to a data type.

    Args:
        values: NumPy array or tensor of any shape.
        dtype: Name of the type, such as "float32".

    Returns:
        The converted values; `values` itself if it has the type already.
    """
    if not is_tensor(values):
        return values.astype(dtype, copy=False)
    import torch

    return values.to(getattr(torch, dtype))


def empty(shape: tuple[int, ...], dtype: str, other: Any) -> Any:
    """Allocate uninitialized memory.

    Args:
        shape: Shape of the result.
        dtype: Name of its type.
        other: An array or a tensor, whose kind and device the result has.

    Returns:
        An uninitialized array or tensor.
    """
    if not is_tensor(other):
        return np.empty(shape, dtype=dtype)
    import torch

    return torch.empty(shape, dtype=getattr(torch, dtype), device=other.device)


def matmul(first: Any, second: Any, out: Any) -> None:
    """Compute `first @ second` in IEEE float32, whatever reduced precision the user has allowed.

    Args:
        first: (n, D) float32.
        second: (D, m) float32.
        out: (n, m) float32, overwritten with the product.
    """
    if is_tensor(out):
        import torch

        with _ieee_products():
            torch.matmul(first, second, out=out)
    else:
        np.matmul(first, second, out=out)


@contextlib.contextmanager
def _ieee_products() -> Iterator[None]:
    """Switch off reduced precision of float32 products in the context."""
    import torch

    backends: Any = torch.backends
    settings = [backends.cuda.matmul, getattr(backends.mkldnn, "matmul", None)]
    if all(hasattr(setting, "fp32_precision") for setting in settings):
        # One per backend; the global one raises if both kinds were used, and does not cover all of these.
        settings = [setting for setting in settings if setting.fp32_precision != "ieee"]
        previous = [setting.fp32_precision for setting in settings]
        for setting in settings:
            setting.fp32_precision = "ieee"
        try:
            yield
        finally:
            for setting, precision in zip(settings, previous, strict=True):
                setting.fp32_precision = precision
    else:  # PyTorch before 2.9 has only the global one
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(allowed)


def int8_matmul(first: Any, second: Any, out: Any) -> None:
    """Compute the product of 8-bit integers `first @ second`.

    Args:
        first: (n, D) int8 tensor.
        second: (D, m) int8 tensor.
        out: (n, m) int32 tensor, overwritten with the product.

    Raises:
        RuntimeError: If this version of PyTorch has no such product, or not for this device or these shapes.
    """
    import torch

    # Not part of PyTorch's public API.
    product = getattr(torch, "_int_mm", None)
    if product is None:
        raise RuntimeError(f"PyTorch {torch.__version__} has no product of 8-bit integers")
    product(first, second, out=out)


def row_products(first: Any, second: Any) -> Any:
    """Compute the inner product of each pair of rows, summed in their own type.

    Args:
        first: (n, D).
        second: (n, D).

    Returns:
        (n,) inner products.
    """
    return (first * second).sum(1) if is_tensor(first) else np.einsum("ij,ij->i", first, second)


def flatnonzero(mask: Any) -> Any:
    """Return the positions where a mask is true.

    Args:
        mask: Boolean array or tensor of any shape.

    Returns:
        (n,) int64 indices into the flattened mask, ascending.
    """
    return mask.reshape(-1).nonzero()[:, 0] if is_tensor(mask) else np.flatnonzero(mask)


def as_integers(values: Any) -> Any:
    """Reinterpret the bits of float32 values as int32.

    Args:
        values: float32 array or tensor.

    Returns:
        An int32 view of the same memory.
    """
    if not is_tensor(values):
        return values.view(np.int32)
    import torch

    return values.view(torch.int32)


def mean(values: Any) -> Any:
    """Return the mean row, summed in float64.

    Args:
        values: (n, D) floating.

    Returns:
        (D,) float64 array or tensor.
    """
    if not is_tensor(values):
        return values.mean(0, dtype=np.float64)
    import torch

    return values.mean(0, dtype=torch.float64)


def max_abs(values: Any) -> np.ndarray:
    """Return the largest absolute value of each row.

    Args:
        values: (n, D) floating.

    Returns:
        (n,) float64 array in host memory.
    """
    if is_tensor(values):
        return to_numpy(values.abs().amax(1).double())
    return np.maximum(values.max(axis=1), -values.min(axis=1)).astype(np.float64)


def kth_smallest(values: Any, k: int) -> np.ndarray:
    """Return the k-th smallest value of each row.

    Args:
        values: (b, T) floating.
        k: Rank of the value, from 1 to T.

    Returns:
        (b,) float64 array in host memory.
    """
    if is_tensor(values):
        return to_numpy(values.kthvalue(k, dim=1)[0].double())
    return np.partition(values, k - 1, axis=1)[:, k - 1].astype(np.float64)


def rint(values: Any) -> Any:
    """Round to the nearest integers, halves to even.

    Args:
        values: Floating array or tensor.

    Returns:
        The rounded values in the same type.
    """
    return values.round() if is_tensor(values) else np.rint(values)


def sort(values: Any) -> Any:
    """Sort in ascending order.

    Args:
        values: One-dimensional array or tensor.

    Returns:
        Copy in ascending order, of the same type.
    """
    return values.sort()[0] if is_tensor(values) else np.sort(values)


def searchsorted(ascending: Any, values: Any) -> Any:
    """Count the entries of a sorted array below each value.

    Args:
        ascending: (n,) sorted array or tensor.
        values: (m,) values to look up, of the same kind.

    Returns:
        (m,) int64 counts.
    """
    if not is_tensor(ascending):
        return np.searchsorted(ascending, values)
    import torch

    return torch.searchsorted(ascending, values)
