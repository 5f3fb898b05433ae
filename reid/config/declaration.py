"""The declaration of a key of the configuration: its default, its permitted values and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

Value = bool | int | float | str | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """Declaration of one key.

    Attributes:
        default: Default value, whose type every value must have. A tuple stands for a list.
        help: One line for the table of the documentation.
        choices: Permitted values; empty if any value of the type is.
        low: Smallest permitted number.
        high: Largest permitted number.
        above: Number that a value must exceed.
        prefix: Begins further permitted values, which are checked where they are used; empty if there are none.
        separator: Joins several choices in one value; empty if a value is a single choice.
        old_names: Names of the key in earlier versions, which are still read.
        movable: Whether the value may change when a run is resumed.
        structural: Whether embeddings depend on the key. Read for the section MODEL only.
    """

    default: Value
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    prefix: str = ""
    separator: str = ""
    old_names: tuple[str, ...] = ()
    movable: bool = False
    structural: bool = True

    @property
    def values(self) -> tuple[str, ...]:
        """The permitted values as they are listed; the empty one, if permitted, is left out."""
        return tuple(filter(None, (*self.choices, f"{self.prefix}NAME" if self.prefix else "")))

    @property
    def limits(self) -> str:
        """The permitted numbers in words; empty if there is no limit."""
        if self.above > -math.inf:
            return f"above {self.above}"
        if self.low == -math.inf:
            return ""
        return f"{self.low} to {self.high}" if self.high < math.inf else f"{self.low} or more"
