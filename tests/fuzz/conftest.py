"""Prints what came of the inputs where their number was asked for by FUZZ_INPUTS, as `make fuzz` does."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.harness import DRAWN, ENDINGS, INPUTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: Any) -> None:
    del config
    if not INPUTS or not ENDINGS:
        return
    write = terminalreporter.write_line
    write(f"\n{'hostile inputs':<34}{'tried':>9}{'refused':>9}{'accepted':>9}")
    for target, endings in sorted(ENDINGS.items()):
        write(f"{target:<34}" + "".join(f"{endings[kind]:>9,}" for kind in ("tried", "refused", "accepted")))
    total = [sum(endings[kind] for endings in ENDINGS.values()) for kind in ("tried", "refused", "accepted")]
    write(f"{'all':<34}" + "".join(f"{count:>9,}" for count in total))
    write(f"{sum(DRAWN.values()):,} inputs drawn, some of them read by several readers")
