"""Checkpoints of other codebases, recognized by their tensors and converted to the network of this one.

A family is recognized by how names of tensors begin, and has a function from `RemainingTensors` to `Converted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from reid.errors import InputError, unknown_name
from reid.model.foreign import fastreid, layumi, strong_baseline, torchreid
from reid.model.foreign.parts import Converted as Converted
from reid.model.foreign.parts import RemainingTensors

_MAX_NAMES = 5  # tensors of an unknown file listed in the error


@dataclass(frozen=True)
class Family:
    """A codebase whose checkpoints can be converted.

    Attributes:
        tensors: Typical tensor names, for the error message.
        prefixes: How some tensor names of every file of this family begin.
        convert: Function that converts the tensors of such a file.
    """

    tensors: str
    prefixes: tuple[str, ...]
    convert: Callable[[RemainingTensors], Converted]


FAMILIES: dict[str, Family] = {
    layumi.NAME: Family(layumi.TENSORS, layumi.PREFIXES, layumi.from_layumi),
    strong_baseline.NAME: Family(
        strong_baseline.TENSORS, strong_baseline.PREFIXES, strong_baseline.from_strong_baseline
    ),
    fastreid.NAME: Family(fastreid.TENSORS, fastreid.PREFIXES, fastreid.from_fastreid),
    torchreid.NAME: Family(torchreid.TENSORS, torchreid.PREFIXES, torchreid.from_torchreid),
}


def convert(tensors: Mapping[str, Tensor], *, source: str, family: str | None = None) -> Converted:
    """Convert a state dict of another codebase.

    Args:
        tensors: State dict of the other codebase.
        source: Name of the file in error messages.
        family: A key of `FAMILIES`; None recognizes it by the tensors.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If the family is unknown, or tensors are missing, unexpected or have a different shape.
    """
    if family is None:
        found = (name for name, one in FAMILIES.items() if any(tensor.startswith(one.prefixes) for tensor in tensors))
        family = next(found, None)
        if family is None:
            first = [f"{name} {tuple(value.shape)}" for name, value in list(tensors.items())[:_MAX_NAMES]]
            known = "; ".join(f"{name}: {one.tensors}" for name, one in FAMILIES.items())
            raise InputError(
                f"{source}: a checkpoint of an unknown family; its {len(tensors)} tensors begin with "
                f"{', '.join(first)}. Known are {known}"
            )
    elif family not in FAMILIES:
        raise unknown_name("family of checkpoints", family, tuple(FAMILIES))
    return FAMILIES[family].convert(RemainingTensors(tensors, source))
