"""The sum that convolution, tiled convolution and local connection share, with a bank of th x tw kernels.

    out(b, o, j, k) = bias[j', k'](o) + Σ_{c, y, x} K[j', k'](o, x, y, c) in(b, c, j s + y, k s + x)

with j' = j mod th and k' = k mod tw. Unfolding the whole input repeats every value kh kw times, and if kernels share
little, that copy costs more than the arithmetic. Here one row of outputs is one batched matrix product. Its input, a
strip of kh rows, is stored with the columns first and the batch last, so that the window of each output is a contiguous
block, overlapping the next one, which the product reads in place: nothing is repeated, and the strip stays in the
cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reid.model.connection.sizes import Pair


def kernel_bank_product(
    maps: Tensor, bank: Tensor, bias: Tensor | None, *, stride: Pair, padding: Pair, size: Pair
) -> Tensor:
    """Compute the sum above. Differentiable once.

    Under autocast it is computed in the lower precision, as a convolution is.

    Args:
        maps: (B, C, H, W) floating.
        bank: Kernels, (th, tw, O, kw, kh, C).
        bias: (th, tw, O), or None.
        stride: Rows and columns.
        padding: Rows and columns.
        size: Rows and columns of the output.

    Returns:
        (B, O, *size), in the memory format of `maps`.
    """
    device = maps.device.type
    bias = bank.new_zeros(bank.shape[:3]) if bias is None else bias
    if torch.is_autocast_enabled(device):
        lower = torch.get_autocast_dtype(device)
        maps, bank, bias = maps.to(lower), bank.to(lower), bias.to(lower)
    with torch.autocast(device, enabled=False):
        out: Tensor = _RowProducts.apply(maps, bank, bias, stride, padding, size)
    return out


@dataclass(frozen=True)
class _Rows:
    """Receptive fields of rows of outputs in maps (H, W, C, B); kernel, stride and padding are rows, columns."""

    maps: Tensor
    kernel: Pair
    stride: Pair
    padding: Pair
    columns: int

    def windows(self, row: int) -> Tensor:
        """Return the windows of a row, (columns, kw kh C, B): overlapping parts of one strip, not copied."""
        strip = self.new_strip(self.maps.dtype)
        (across, down), rows = self._reach(row)
        for margin in (strip[: across.start], strip[across.stop :], strip[:, : down.start], strip[:, down.stop :]):
            margin.zero_()
        strip[across, down] = self.maps[rows].transpose(0, 1)
        height, batch = strip[0, ..., 0].numel(), strip.shape[3]
        size, step = (self.columns, self.kernel[1] * height, batch), self.stride[1] * height * batch
        return strip.as_strided(size, (step, batch, 1))

    def new_strip(self, dtype: torch.dtype) -> Tensor:
        """Allocate a strip, (W + 2 padding, kh, C, B), not filled."""
        _, width, channels, batch = self.maps.shape
        return self.maps.new_empty(width + 2 * self.padding[1], self.kernel[0], channels, batch, dtype=dtype)

    def add_strip(self, total: Tensor, strip: Tensor, row: int) -> None:
        """Add the values of a strip to the positions of `total`, (H, W, C, B), that it was copied from."""
        inside, rows = self._reach(row)
        total[rows] += strip[inside].transpose(0, 1)

    def _reach(self, row: int) -> tuple[tuple[slice, slice], slice]:
        """Return the part of a strip inside the maps (columns, rows), and the corresponding rows of the maps."""
        height, width = self.maps.shape[:2]
        top = row * self.stride[0] - self.padding[0]
        first, last = max(top, 0), max(min(top + self.kernel[0], height), 0)
        left = self.padding[1]
        return (slice(left, left + width), slice(first - top, max(last - top, first - top))), slice(first, last)


class _RowProducts(torch.autograd.Function):
    """Explicit gradient, because autograd would allocate one of the size of the whole input for every row."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, bank: Tensor, bias: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        th, _, outputs, kw, kh, _ = bank.shape
        ctx.channels_last = _is_channels_last(maps)
        ctx.window = ((kh, kw), stride, padding, size[1])
        rows = _Rows(_batch_last(maps), *ctx.window)
        ctx.save_for_backward(rows.maps, bank)
        out = _new_batch_last(rows.maps, (*size, outputs, len(maps)), ctx.channels_last)
        for row in range(size[0]):
            kernels, shift = _spread(bank[row % th].flatten(2), size[1]), _spread(bias[row % th], size[1])
            out[row] = torch.baddbmm(shift[:, :, None], kernels, rows.windows(row))
        return _batch_first(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, bank = ctx.saved_tensors
        rows, gradient = _Rows(maps, *ctx.window), _batch_last(gradient)
        of_maps = of_bank = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps = _batch_first(_gradient_of_maps(rows, bank, gradient, ctx.channels_last)).to(maps.dtype)
        if ctx.needs_input_grad[1]:
            of_bank = _gradient_of_bank(rows, bank, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = _gradient_of_bias(bank, gradient)
        return of_maps, of_bank, of_bias, None, None, None


def _gradient_of_maps(rows: _Rows, bank: Tensor, gradient: Tensor, channels_last: bool) -> Tensor:
    # The sum over overlapping windows is taken in float32 where the products are of a lower precision.
    exact = torch.promote_types(bank.dtype, torch.float32)
    total = _new_batch_last(rows.maps, rows.maps.shape, channels_last, exact).zero_()
    step, columns = rows.stride[1], rows.columns
    for row, part in enumerate(gradient):
        strip = rows.new_strip(exact).zero_()
        flat = strip.flatten(1, 2)
        kernels = _spread(bank[row % len(bank)].flatten(3), columns)
        for x in range(rows.kernel[1]):
            reached, weight = flat[x : x + step * columns : step], kernels[:, :, x].transpose(1, 2)
            if step == 1 and weight.dtype == exact:
                reached.baddbmm_(weight, part)
            else:
                reached += torch.bmm(weight, part)
        rows.add_strip(total, strip, row)
    return total


def _gradient_of_bank(rows: _Rows, bank: Tensor, gradient: Tensor) -> Tensor:
    if bank.shape[:2] == gradient.shape[:2]:  # one kernel per output: nothing to sum
        each = torch.empty_like(bank).flatten(3)
        for row, part in enumerate(gradient):
            torch.bmm(part, rows.windows(row).transpose(1, 2), out=each[row])
        return each.view_as(bank)
    total = torch.zeros_like(bank, dtype=torch.promote_types(bank.dtype, torch.float32)).flatten(3)
    kernels = torch.arange(rows.columns, device=bank.device) % bank.shape[1]
    for row, part in enumerate(gradient):
        product = torch.bmm(part, rows.windows(row).transpose(1, 2))
        total[row % len(bank)].index_add_(0, kernels, product.to(total.dtype))
    return total.to(bank.dtype).view_as(bank)


def _gradient_of_bias(bank: Tensor, gradient: Tensor) -> Tensor:
    summed = gradient.sum(3, dtype=torch.promote_types(bank.dtype, torch.float32))
    if bank.shape[:2] == gradient.shape[:2]:
        return summed.to(bank.dtype)
    th, tw, outputs = bank.shape[:3]
    rows, columns = (torch.arange(count, device=bank.device) for count in gradient.shape[:2])
    kernels = ((rows % th)[:, None] * tw + columns % tw).flatten()
    total = summed.new_zeros(th * tw, outputs).index_add_(0, kernels, summed.flatten(0, 1))
    return total.view(th, tw, outputs).to(bank.dtype)


def _spread(kernels: Tensor, columns: int) -> Tensor:
    """Repeat kernels (tw, ...) -> (columns, ...): column k gets kernel k mod tw."""
    count = len(kernels)
    return kernels if count == columns else kernels[torch.arange(columns, device=kernels.device) % count]


def _is_channels_last(maps: Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


def _batch_last(maps: Tensor) -> Tensor:
    """Transpose (B, C, H, W) -> (H, W, C, B), the batch contiguous, the other dimensions in their order in memory.

    Two dimensions at a time, since PyTorch transposes those several times as fast as four.
    """
    batch, channels, height, width = maps.shape
    if _is_channels_last(maps):
        flat = maps.permute(0, 2, 3, 1).reshape(batch, -1)
        return flat.t().contiguous().view(height, width, channels, batch)
    flat = maps.reshape(batch, -1)
    return flat.t().contiguous().view(channels, height, width, batch).permute(1, 2, 0, 3)


def _new_batch_last(
    like: Tensor, shape: Sequence[int], channels_last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    height, width, channels, batch = shape
    if channels_last:
        return like.new_empty(height, width, channels, batch, dtype=dtype)
    return like.new_empty(channels, height, width, batch, dtype=dtype).permute(1, 2, 0, 3)


def _batch_first(maps: Tensor) -> Tensor:
    """Invert `_batch_last`."""
    height, width, channels, batch = maps.shape
    if maps.is_contiguous():
        flat = maps.view(-1, batch).t().contiguous()
        return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
    flat = maps.permute(2, 0, 1, 3).reshape(-1, batch).t().contiguous()
    return flat.view(batch, channels, height, width)
