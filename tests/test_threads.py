"""How many threads a process may have: affinity, quotas of control groups, and a user's own variables."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid import threads

VARIABLES = (*threads.COUNT_VARIABLES, *threads.WAIT_VARIABLES)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_limited", {})
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what a test sets is removed after it
        monkeypatch.delenv(name)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(threads, "_affinity", lambda: 8)
    return monkeypatch


def control_groups(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        # The quota of a group that contains this one counts too.
        (
            "0::/jobs/a b/task\n",
            {"sys/fs/cgroup/jobs/cpu.max": "300000 100000\n", "sys/fs/cgroup/jobs/a b/task/cpu.max": "max 100000\n"},
            3,
        ),
        # In a container of version 1 the path is that of the host, and the mount is the group itself.
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/123\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            1.5,
        ),
        (
            "4:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/../other\nnonsense\n", {"sys/fs/cgroup/cpu.max": "100000\n"}, math.inf),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 0\n"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_quotas(tmp_path: Path, groups: str, files: dict[str, str], quota: float) -> None:
    assert threads.cpu_quota(control_groups(tmp_path, groups, files)) == quota


def test_no_control_groups(tmp_path: Path) -> None:
    assert threads.cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (2.5, 2), (0.3, 1), (20, 8)])
def test_cores_are_limited_by_the_quota(eight_cores: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    eight_cores.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.available_cores() == cores
    assert threads.thread_limit(4) == max(1, cores // 4)


@pytest.mark.parametrize(
    ("values", "requested"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": " 3,2"}, 3),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}, 2),
    ],
)
def test_a_request_of_the_user_is_followed(
    eight_cores: pytest.MonkeyPatch, values: dict[str, str], requested: int | None
) -> None:
    for name, value in values.items():
        eight_cores.setenv(name, value)
    assert threads.requested_threads() == requested
    assert threads.thread_limit(2) == (requested or threads.available_cores() // 2)


def test_the_single_thread_of_torchrun_is_no_request(eight_cores: pytest.MonkeyPatch) -> None:
    eight_cores.setattr(threads, "cpu_quota", lambda: math.inf)
    eight_cores.setenv("OMP_NUM_THREADS", "1")
    assert threads.thread_limit(2) == 4


def test_the_variables_are_set_where_the_user_has_set_none(eight_cores: pytest.MonkeyPatch) -> None:
    eight_cores.setattr(threads, "cpu_quota", lambda: 2.5)
    threads.prepare_threads()
    assert {name: os.environ.get(name) for name in VARIABLES} == {
        "MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": None,
    }  # fmt: skip
    assert threads.requested_threads() is None  # they are ours
    threads.prepare_threads()  # of the next command in this process
    assert threads.requested_threads() is None


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "active")])
def test_a_users_variables_stay(eight_cores: pytest.MonkeyPatch, name: str, value: str) -> None:
    eight_cores.setattr(threads, "cpu_quota", lambda: 2.0)
    eight_cores.setenv(name, value)
    eight_cores.setenv("OMP_NUM_THREADS", "5")
    threads.prepare_threads()
    assert {n: os.environ[n] for n in VARIABLES if n in os.environ} == {name: value, "OMP_NUM_THREADS": "5"}


def test_processes_side_by_side_share_the_cores(eight_cores: pytest.MonkeyPatch) -> None:
    eight_cores.setattr(threads, "cpu_quota", lambda: 6.0)
    threads.prepare_threads()
    shared, alone = threads.environment_for(3), threads.environment_for(1)
    assert [shared[name] for name in threads.COUNT_VARIABLES] == ["2", "2"]
    assert not set(threads.COUNT_VARIABLES) & set(alone)  # a single one is free to choose
    eight_cores.setenv("OMP_NUM_THREADS", "5")
    eight_cores.delenv("MKL_NUM_THREADS")
    assert threads.environment_for(3)["OMP_NUM_THREADS"] == "5"
    assert "MKL_NUM_THREADS" not in threads.environment_for(3)


def test_importing_it_imports_no_library() -> None:
    code = "import sys, reid.threads; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=Path(threads.__file__).parents[1])
