"""tools/serve.py as a user runs it: from start to Ctrl-C, and errors in one line."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import served
from called import Tool
from forked import start_command

pytest.importorskip("fastapi", reason="needs the extra serve")
from reid.commands import parse, serve
from reid.errors import install_command
from reid.search.serve.service import SearchService

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> served.SampleIndex:
    return served.build_sample_index(tmp_path_factory.mktemp("served"), identities=2, cameras=1)


def test_from_the_first_line_to_the_end(sample: served.SampleIndex) -> None:
    process = start_command("serve", "--index", str(sample.index), "--port", "0", "--device", "cpu", "--token")
    try:
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
        process.close()


def test_it_stops_in_the_middle_of_uploads_and_of_a_search(sample: served.SampleIndex, tmp_path: Path) -> None:
    def search_forever() -> None:
        SearchService.search = lambda *_: [time.sleep(0.01) for _ in iter(int, 1)]  # type: ignore[method-assign]

    token = "a-token-in-a-file"
    (tmp_path / "token").write_text(f"{token}\n")
    options = ("--port", "0", "--device", "cpu", "--token-file", str(tmp_path / "token"))
    process = start_command("serve", "--index", str(sample.index), *options, before=search_forever)
    try:
        url = process.stdout.readline().strip()
        assert "token" not in url
        port = int(url.rpartition(":")[2].strip("/"))
        head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n"
        body = '--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n1\r\n--x--\r\n'
        messages = [
            f"{head}Content-Length: {len(body)}\r\n\r\n{body}",
            f"{head}Content-Length: 50000\r\n\r\n--x",
            "GET",
        ]
        connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in messages]
        for connection, message in zip(connections, messages, strict=True):
            connection.sendall(message.encode())
        health = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).read()
        assert json.loads(health) == {"status": "ok"}
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        assert time.monotonic() - start < 30  # seconds, most of them for the end of the interpreter on a busy machine
        assert (code, process.stderr.read(), process.stdout.read()) == (0, "", "press Ctrl-C to stop\nstopped\n")
        for connection in connections:
            connection.close()
    finally:
        process.close()


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def token(*arguments: str) -> str | None:
        return serve._token(parse("serve", arguments))

    monkeypatch.delenv("REID_TOKEN", raising=False)
    assert token() is None
    monkeypatch.setenv("REID_TOKEN", "of the environment")
    (tmp_path / "token").write_text(" of-the-file\n")
    assert token() == "of the environment" and token("--token-file", str(tmp_path / "token")) == "of-the-file"
    assert token("--token", "of-the-command") == "of-the-command"
    assert len(token("--token") or "") >= 32 and token("--token") != token("--token")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0: other machines can reach it, so it needs a token; add --token"),
        (("--host", "0.0.0.0", "--token", "short"), "the token must have at least 16 ASCII characters"),
        (("--token-file", "nowhere.txt"), "nowhere.txt: No such file or directory"),
        (("--token-file", "/dev/null"), "/dev/null: not a file"),
        (("--host", "no.such.host.invalid"), "--host no.such.host.invalid: not an address of this machine"),
        (("--port", "70000"), "--port 70000: must be in [0, 65535]"),
        (("--index", "nowhere"), "nowhere: no such index; create one with svdnet index"),
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
    ended = tool("serve", "--index", sample.index, "--port", "0", *more).fails(message, alone=True)
    assert ended.out == ""


def test_a_port_in_use(tool: Tool, sample: served.SampleIndex) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = tool("serve", "--index", sample.index, "--port", port)
    ended.fails(f"--port {port}: already in use; choose another one")


def test_a_missing_package_names_the_extra(
    tool: Tool, sample: served.SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    tool("serve", "--index", sample.index).fails(f"the page needs uvicorn: {install_command('serve')}")
