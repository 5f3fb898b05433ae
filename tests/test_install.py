"""What an installation gets: versions that were tested, from names alone."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from unittest.mock import patch

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


LISTS = ["requirements.lock", "constraints/oldest.txt"]


def versions(name: str) -> dict[str, str]:
    """The versions in a file of pins by the names of the distributions."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+", line)] == []
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def declared() -> list[Requirement]:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    arguments = setup.call_args.kwargs
    extras = [line for extra in arguments["extras_require"].values() for line in extra]
    return [Requirement(line) for line in [*arguments["install_requires"], *extras]]


@pytest.mark.parametrize("name", LISTS)
def test_the_pinned_versions_fulfill_every_requirement(name: str) -> None:
    pinned = versions(name)
    for requirement in declared():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), f"{name}: {requirement}: {version}"


def test_lower_bounds_are_the_oldest_versions_that_are_tested() -> None:
    oldest = versions("constraints/oldest.txt")
    for requirement in declared():
        pinned = Version(oldest[canonicalize_name(requirement.name)]).release
        for bound in (Version(part.version).release for part in requirement.specifier if part.operator == ">="):
            assert pinned[: len(bound)] == bound, f"{requirement} is tested from {pinned}"


def test_make_installs_the_pinned_versions() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert installs and all("$(2)" in line for line in installs)
    calls = [line.split(",")[1:3] for line in lines if "$(call install," in line]
    assert calls == [[".venv", "$(LOCK)"], [".venv-oldest", "$(OLDEST)"]]
