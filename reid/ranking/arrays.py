"""The few operations that NumPy and PyTorch spell differently, so that one algorithm serves arrays and CUDA tensors."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_tensor(values: Any) -> bool:
    """Whether `values` is a tensor; everything else (arrays, memory maps, shards) is read with NumPy."""
    return type(values).__module__.startswith("torch")


def rows_of(values: Any, rows: slice | np.ndarray) -> Any:
    """Rows of a matrix, by slice or int64 array: a tensor stays on its device, anything else comes as an array."""
    if is_tensor(values) and not isinstance(rows, slice):
        return values[like(rows, values)]
    found = values[rows]
    return found if is_tensor(found) else np.asarray(found)


def like(array: np.ndarray, other: Any) -> Any:
    """`array` as `other` is: a tensor on its device, or itself."""
    if not is_tensor(other):
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(other.device)


def host(values: Any) -> np.ndarray:
    """As an array in the host's memory."""
    return values.cpu().numpy() if is_tensor(values) else np.asarray(values)


def all_rows(values: Any) -> np.ndarray:
    """A whole matrix as an array in the host's memory: itself where it is one."""
    return host(rows_of(values, slice(None)))


def as_type(values: Any, dtype: str) -> Any:
    """Converted to the type of that name; itself where it has it."""
    if not is_tensor(values):
        return values.astype(dtype, copy=False)
    import torch

    return values.to(getattr(torch, dtype))


def empty(shape: tuple[int, ...], dtype: str, other: Any) -> Any:
    """Memory for `shape`, where `other` is."""
    if not is_tensor(other):
        return np.empty(shape, dtype=dtype)
    import torch

    return torch.empty(shape, dtype=getattr(torch, dtype), device=other.device)


def matmul(first: Any, second: Any, out: Any) -> None:
    """out = first @ second, in float32 to the last bit that it promises, whatever precision the user has allowed."""
    if is_tensor(out):
        import torch

        # One setting a backend; torch's older single one raises where both were used, and does not see all of these.
        backends: Any = torch.backends
        settings = [s for s in (backends.cuda.matmul, backends.mkldnn.matmul) if s.fp32_precision != "ieee"]
        allowed = [setting.fp32_precision for setting in settings]
        for setting in settings:
            setting.fp32_precision = "ieee"
        try:
            torch.matmul(first, second, out=out)
        finally:
            for setting, precision in zip(settings, allowed, strict=True):
                setting.fp32_precision = precision
    else:
        np.matmul(first, second, out=out)


def row_products(first: Any, second: Any) -> Any:
    """The inner product of each pair of rows, summed in their own type."""
    return (first * second).sum(1) if is_tensor(first) else np.einsum("ij,ij->i", first, second)


def flatnonzero(mask: Any) -> Any:
    """Where a mask holds, as int64 places in its flat form."""
    return mask.reshape(-1).nonzero()[:, 0] if is_tensor(mask) else np.flatnonzero(mask)


def as_integers(values: Any) -> Any:
    """The bits of float32 values as int32."""
    if not is_tensor(values):
        return values.view(np.int32)
    import torch

    return values.view(torch.int32)


def largest(values: Any) -> np.ndarray:
    """The largest absolute number of each row, (n,) float64 on the host."""
    if is_tensor(values):
        return host(values.abs().amax(1).double())
    return np.maximum(values.max(axis=1), -values.min(axis=1)).astype(np.float64)


def kth_smallest(values: Any, k: int) -> np.ndarray:
    """The k-th smallest number of each row, counted from 1: (b, T) -> (b,) float64 on the host."""
    if is_tensor(values):
        return host(values.kthvalue(k, dim=1)[0].double())
    return np.partition(values, k - 1, axis=1)[:, k - 1].astype(np.float64)


def rint(values: Any) -> Any:
    """Rounded to whole numbers, halves to even ones."""
    return values.round() if is_tensor(values) else np.rint(values)


def sort(values: Any) -> Any:
    """Ascending, one dimension."""
    return values.sort()[0] if is_tensor(values) else np.sort(values)


def searchsorted(ascending: Any, wanted: Any) -> Any:
    """How many of `ascending` are below each of `wanted`."""
    if not is_tensor(ascending):
        return np.searchsorted(ascending, wanted)
    import torch

    return torch.searchsorted(ascending, wanted)
