"""How query and gallery are compared, and whether they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reid.errors import InputError, unknown_name
from reid.ranking import arrays
from reid.ranking.distance import check_sides
from reid.ranking.exact.first_pass import integers_exact, is_int8_faster

FIRST_PASSES = ("auto", "float32", "integers")


@dataclass(frozen=True)
class ComparisonOptions:
    """How the rows of two sides are compared; only `metric` changes the result.

    Attributes:
        metric: "euclidean", or "cosine" for the Euclidean distance between rows divided by their float64 length.
        block: Queries compared at once.
        first_pass: "float32" or "integers" products, or "auto" for the faster one on this machine.
    """

    metric: str = "euclidean"
    block: int = 1024
    first_pass: str = "auto"

    def uses_integers(self, query: Any) -> bool:
        """Return whether the first pass multiplies 8-bit integers.

        Args:
            query: (Q, D) query features, on the device where they are multiplied.

        Returns:
            True for "integers", and for "auto" where integers are faster.

        Raises:
            InputError: If integer products were requested and this machine does not have exact ones.
        """
        device, width = str(query.device) if arrays.is_tensor(query) else "cpu", int(query.shape[1])
        if self.first_pass == "integers" and not integers_exact(width, device):
            raise InputError(
                f"first pass 'integers': 8-bit integer products of rows of {width} numbers are missing or not exact on "
                f"this machine ({device}); use 'auto' or 'float32'"
            )
        return self.first_pass == "integers" or (self.first_pass == "auto" and is_int8_faster(width, device))


def check_comparable(query: Any, gallery: Any, options: ComparisonOptions) -> None:
    """Check the options, and that two sides can be compared.

    Args:
        query: (Q, D) floating, array, memory map, shards or tensor.
        gallery: (G, D) floating, the same.
        options: How they will be compared.

    Raises:
        InputError: If `check_sides` raises it, the first pass is unknown, the block is below 1, or tensors are on
            different devices.
    """
    check_sides(query, gallery, options.metric)
    if options.first_pass not in FIRST_PASSES:
        raise unknown_name("first pass", options.first_pass, FIRST_PASSES)
    if options.block < 1:
        raise InputError(f"block {options.block}: must be at least 1 query")
    devices = [str(side.device) if arrays.is_tensor(side) else "no tensor" for side in (query, gallery)]
    if devices[0] != devices[1]:
        raise InputError(
            f"query and gallery must be tensors on the same device, or both arrays, not {devices[0]} and {devices[1]}"
        )
