"""The commands: each module parses its arguments, reads the configuration, calls the packages below, and prints.

`tools/` has a script for each, to run from a clone.
"""

from __future__ import annotations

from reid.errors.command import run_command  # isort: split

import importlib
from collections.abc import Callable


def run(name: str) -> int:
    """Run a command with the arguments of the process.

    Args:
        name: Name of its module.

    Returns:
        The exit code, see `run_command`.
    """
    return run_command(lambda: main_function(name)())


def main_function(name: str) -> Callable[[], None]:
    """Import a command, which takes seconds.

    Args:
        name: Name of its module.

    Returns:
        Its function `main`.
    """
    main: Callable[[], None] = importlib.import_module(f"reid.commands.{name}").main
    return main
