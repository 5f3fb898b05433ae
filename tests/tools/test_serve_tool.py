"""tools/serve.py as a user runs it: from start to Ctrl-C, and errors in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import served

pytest.importorskip("fastapi", reason="needs the extra serve")

ROOT = Path(__file__).parents[2]
Tool = Callable[..., Any]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> served.SampleIndex:
    return served.build_sample_index(tmp_path_factory.mktemp("served"), identities=2, cameras=1)


def test_from_the_first_line_to_the_end(sample: served.SampleIndex) -> None:
    command = [sys.executable, "tools/serve.py", "--index", str(sample.index), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--token"], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout and process.stderr
        where, _, token = process.stdout.readline().strip().partition("?token=")
        assert where.startswith("http://127.0.0.1:") and len(token) >= 32
        request = urllib.request.Request(where, headers={"Authorization": f"Bearer {token}"})
        page = urllib.request.urlopen(request, timeout=30).read().decode()
        assert json.loads(page.partition('id="data">')[2].partition("</script>")[0])["images"] == 2
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{where}image/0", timeout=30)
        process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()
        assert (process.wait(30), err) == (0, "") and out == "press Ctrl-C to stop\nstopped\n"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0: other machines can reach it, so it needs a token; add --token"),
        (("--host", "0.0.0.0", "--token", "short"), "--token: must have at least 16 ASCII characters"),
        (("--host", "no.such.host.invalid"), "--host no.such.host.invalid: not an address of this machine"),
        (("--port", "70000"), "--port 70000: must be in [0, 65535]"),
        (("--index", "nowhere"), "nowhere: no such index; create one with tools/index.py"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--weights", "OTHER"), "was built with the model"),
        (("--prior", "0.1"), "--prior needs a calibrated model"),
    ],
)
def test_mistakes_are_reported_in_a_line(
    tool: Tool, sample: served.SampleIndex, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    if "OTHER" in more:
        import torch

        from reid.io.checkpoint import load_checkpoint, save_checkpoint

        content = load_checkpoint(sample.weights)
        content["model"]["eigenlayer.weight"] = torch.ones_like(content["model"]["eigenlayer.weight"])
        save_checkpoint(tmp_path / "other.pth", content)
        more = ("--weights", str(tmp_path / "other.pth"))
    ended = tool("serve", "--index", sample.index, "--port", "0", *more)
    assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1 and ended.out == ""


def test_a_port_in_use(tool: Tool, sample: served.SampleIndex) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = tool("serve", "--index", sample.index, "--port", port)
    assert ended.code == 2 and f"--port {port}: already in use; choose another one" in ended.err


def test_a_missing_package_names_the_extra(
    tool: Tool, sample: served.SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = tool("serve", "--index", sample.index)
    assert ended.code == 2 and "the page needs uvicorn: pip install 'reid[serve]'" in ended.err
