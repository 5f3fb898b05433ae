"""Convert a section of the configuration to the frozen dataclass that other packages take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from yacs.config import CfgNode

Record = TypeVar("Record")


def record_from(node: CfgNode, cls: type[Record], **extra: Any) -> Record:
    """Build a dataclass whose fields are named like the keys of a section, in lower case.

    Every field is taken from `extra` or from the section, so that a new setting needs its key, its field and nothing
    between. Keys without a field are ignored.

    Args:
        node: Section of the configuration, such as `config.SOLVER`.
        cls: Dataclass to build. Lists of the section become tuples.
        **extra: Values of fields that are computed or come from elsewhere; they take precedence over the section.

    Returns:
        An instance of `cls`.

    Raises:
        TypeError: If a field is neither in `extra` nor a key of the section, even if it has a default.
    """
    names = [field.name for field in fields(cls) if field.name not in extra]  # type: ignore[arg-type]
    missing = [name for name in names if name.upper() not in node]
    if missing:
        raise TypeError(f"{cls.__name__}: no key for {', '.join(missing)} in the section and no value passed")
    values = {name: node[name.upper()] for name in names}
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}, **extra)
