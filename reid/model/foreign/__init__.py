"""Other codebases' checkpoints, recognized by their tensors and put in the terms of the network here.

A family is a test on the names of tensors and a function from `Unexplained` to `Converted`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from reid.errors import InputError, unknown_name
from reid.model.foreign import fastreid, layumi, strong_baseline, torchreid
from reid.model.foreign.parts import Converted as Converted
from reid.model.foreign.parts import Unexplained

_TOLD = 5  # tensors of an unknown file that are named


@dataclass(frozen=True)
class Family:
    """seen: what its tensors are called, for an error. matches: whether names are of it."""

    seen: str
    matches: Callable[[Collection[str]], bool]
    convert: Callable[[Unexplained], Converted]


FAMILIES: dict[str, Family] = {
    layumi.NAME: Family(layumi.SEEN, layumi.is_layumi, layumi.from_layumi),
    strong_baseline.NAME: Family(
        strong_baseline.SEEN, strong_baseline.is_strong_baseline, strong_baseline.from_strong_baseline
    ),
    fastreid.NAME: Family(fastreid.SEEN, fastreid.is_fastreid, fastreid.from_fastreid),
    torchreid.NAME: Family(torchreid.SEEN, torchreid.is_torchreid, torchreid.from_torchreid),
}


def convert(tensors: Mapping[str, Tensor], *, source: str, family: str | None = None) -> Converted:
    """The network of a state dict, in our terms. source: what errors call it. family: None is by its tensors.

    Raises InputError for an unknown family, naming what was seen and what is known, and where tensors are missing, too
    many or of other shapes than the family's.
    """
    if family is None:
        family = next((name for name, one in FAMILIES.items() if one.matches(tensors)), None)
        if family is None:
            seen = [f"{name} {tuple(value.shape)}" for name, value in list(tensors.items())[:_TOLD]]
            known = "; ".join(f"{name}: {one.seen}" for name, one in FAMILIES.items())
            raise InputError(
                f"{source}: a checkpoint of no known family; its {len(tensors)} tensors begin with {', '.join(seen)}. "
                f"Known are {known}"
            )
    elif family not in FAMILIES:
        raise unknown_name("family of checkpoints", family, tuple(FAMILIES))
    return FAMILIES[family].convert(Unexplained(tensors, source))
