"""What an installation gets: versions that were tested, from names alone."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


LISTS = {"requirements.lock": "dev", "constraints/oldest.txt": "tests"}  # and the extras they are for


def versions(name: str) -> dict[str, str]:
    """The versions in a file of pins by the names of the distributions."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+", line)] == []
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def declared(*extras: str) -> list[Requirement]:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    arguments = setup.call_args.kwargs
    more = [line for extra in extras for line in arguments["extras_require"][extra]]
    return [Requirement(line) for line in [*arguments["install_requires"], *more]]


@pytest.mark.parametrize("name", LISTS)
def test_the_pinned_versions_fulfill_every_requirement(name: str) -> None:
    pinned = versions(name)
    for requirement in declared(LISTS[name]):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), f"{name}: {requirement}: {version}"


def test_lower_bounds_are_the_oldest_versions_that_are_tested() -> None:
    oldest = versions("constraints/oldest.txt")
    for requirement in declared("tests"):
        pinned = Version(oldest[canonicalize_name(requirement.name)]).release
        for bound in (Version(part.version).release for part in requirement.specifier if part.operator == ">="):
            assert pinned[: len(bound)] == bound, f"{requirement} is tested from {pinned}"


def test_make_installs_the_pinned_versions() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert installs and all("$(2)" in line for line in installs)
    calls = [line.split(",")[1:3] for line in lines if "$(call install," in line]
    assert calls == [[".venv", "$(LOCK)"], [".venv-oldest", "$(OLDEST)"]]


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REID_DATA")}
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


USE = """
import reid
from reid import Embedder
from reid.commands import run
from reid.config import load_config
from reid.errors import install_command

assert "site-packages" in reid.__file__, reid.__file__
assert install_command("export") == "pip install 'svdnet[export]'"
assert run("dataset", ["--size", "tiny", "--output", "people"]) == 0
assert load_config("demo_synthetic").OUTPUT_DIR and load_config("parts/pooling_gem").MODEL.POOLING.NAME == "gem"
assert Embedder.load("demo", device="cpu").dim
"""


def test_a_wheel_made_from_the_sources_works_in_an_empty_folder(tmp_path: Path) -> None:
    source, dist, venv, empty = (tmp_path / name for name in ("source", "dist", "venv", "empty"))
    for path in (source, empty):
        path.mkdir()
    for folder in ("reid", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; build_meta.build_{}({!r})"
    _run(sys.executable, "-c", build.format("sdist", str(dist)), cwd=source)
    (sdist,) = dist.glob("svdnet-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(dist, filter="data")
    (unpacked,) = (path for path in dist.iterdir() if path.is_dir())
    _run(sys.executable, "-c", build.format("wheel", str(dist)), cwd=unpacked)
    (wheel,) = dist.glob("svdnet-*-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("configs", "reid"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                inside = path.relative_to(ROOT) if folder == "reid" else Path("reid", path.relative_to(ROOT))
                assert inside.as_posix() in names
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    _run(*pip, "install", "--no-index", "--no-deps", "--no-compile", wheel, cwd=empty)
    (packages,) = venv.glob("lib/python*/site-packages")
    # What it depends on: the packages of the environment that runs the tests, after its own.
    (packages / "tests.pth").write_text(str(Path(pytest.__file__).parents[1]), encoding="utf-8")
    assert "svdnet COMMAND" in _run(venv / "bin" / "svdnet", "--help", cwd=empty)
    _run(python, "-c", USE, cwd=empty)
    assert {path.name for path in empty.iterdir()} == {"people"}
