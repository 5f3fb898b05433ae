"""Small files that claim to be large ones are refused without the memory or the time that they ask for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from forked import start
from fuzz import bombs
from fuzz.harness import ENDINGS, INPUTS, SECONDS, Counter

HARMLESS = ("entries.zip", "text.png")  # texts in an image are skipped


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's account of memory")
def test_bombs(tmp_path: Path) -> None:
    bombs.make(tmp_path, inflated=bool(INPUTS))
    process = start(lambda: bombs.main(tmp_path))
    try:
        out, err = process.stdout.read(), process.stderr.read()
        assert process.wait(600) == 0, err[-2000:]
    finally:
        process.close()
    found = json.loads(out.splitlines()[-1])
    assert len(found) >= 19
    endings = ENDINGS.setdefault("bombs", Counter())
    for name, told in found.items():
        assert told["ended"] == (0 if name in HARMLESS else 2), f"{name}: {told}"
        assert told["MiB"] < 400 and told["seconds"] < SECONDS, f"{name}: {told}"
        endings.update(("tried", "accepted" if name in HARMLESS else "refused"))
