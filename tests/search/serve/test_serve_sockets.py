"""Slow, malformed and interrupted requests over real sockets: others are served, and nothing is printed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import served

from reid.search.serve.connections import _client
from reid.search.serve.limits import Limits

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
KIND = b"Content-Type: multipart/form-data; boundary=x\r\n"
HALF_BODY = b"POST /search HTTP/1.1\r\nHost: localhost\r\n" + KIND + b"Content-Length: 50000\r\n\r\n--x\r\n"
BY_PATH = b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n0001_c1s1_000101_00.png\r\n--x--\r\n'
BY_IMAGE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
BY_IMAGE += served.encode_image(served.person(0, 1)) + b"\r\n--x--\r\n"


def head(path: bytes, *lines: bytes, method: bytes = b"GET", host: bytes = b"localhost") -> bytes:
    first = method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n"
    return first + b"".join(line + b"\r\n" for line in lines) + b"Connection: close\r\n\r\n"


def form(content: bytes, kind: bytes = KIND.strip()) -> bytes:
    return head(b"/search", kind, b"Content-Length: %d" % len(content), method=b"POST") + content


@contextlib.contextmanager
def running(sample: served.SampleIndex, embedder: Any = None, **limits: Any) -> Iterator[int]:
    """Serve with limits; yields the port."""
    from reid.search.serve.app import make_app

    app = make_app(embedder or sample.embedder, sample.index, limits=Limits(**limits))
    with served.serving(app) as url:
        yield int(url.rpartition(":")[2].strip("/"))


@contextlib.contextmanager
def clients(port: int, number: int, message: bytes, *, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Open connections that send the same bytes and nothing more."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            one = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
            stack.enter_context(one)
            one.sendall(message)
            opened.append(one)
        yield opened


def ended(connection: socket.socket, seconds: float = 5) -> bool:
    """Wait until the server closes a connection."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def status(port: int, message: bytes) -> int:
    reply = served.talk(port, message, wait=20)
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", reply)
    assert found, reply[:100]
    return int(found[1])


@pytest.mark.parametrize("slow", [HALF_HEAD, b"", HALF_BODY], ids=["heads", "silent", "bodies"])
def test_others_are_served_while_slow_connections_are_open(sample: served.SampleIndex, slow: bytes) -> None:
    with running(sample) as port, clients(port, 100, slow):
        for request in (head(b"/"), head(b"/health"), head(b"/image/0"), form(BY_PATH), form(BY_IMAGE)):
            times = []
            for _ in range(2):  # the first search of a process takes longer
                start = time.monotonic()
                assert status(port, request) == 200 or b"/image/0" in request
                times.append(time.monotonic() - start)
            assert min(times) <= 1  # seconds


@pytest.mark.parametrize(
    "begin",
    [HALF_HEAD, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HALF_HEAD,
     b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"],
    ids=["head", "second head", "body after the response"],
)  # fmt: skip
def test_a_head_must_arrive_in_time_however_often_a_byte_arrives(sample: served.SampleIndex, begin: bytes) -> None:
    with running(sample, idle_seconds=0.5) as port, clients(port, 1, begin) as [slow]:
        start = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 10:
                slow.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_a_client_that_does_not_read_is_dropped(sample: served.SampleIndex) -> None:
    with running(sample, idle_seconds=0.5) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", port))
        with pytest.raises(ConnectionError):
            while True:
                deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        assert status(port, head(b"/")) == 200


def test_a_new_connection_replaces_the_oldest_idle_one_of_its_address(sample: served.SampleIndex) -> None:
    with running(sample, idle_per_address=3) as port, clients(port, 3, HALF_HEAD, source="127.0.0.2") as others:
        with clients(port, 5, HALF_HEAD) as opened:
            assert [ended(one, 0.5) for one in opened] == [True, True, False, False, False]
        assert not any(ended(one, 0.1) for one in others)


def test_the_number_of_connections_is_limited(sample: served.SampleIndex) -> None:
    with running(sample, idle_per_address=100, max_connections=6) as port, clients(port, 6, HALF_HEAD) as opened:
        assert status(port, head(b"/health")) == 200
        assert ended(opened[0], 1) and not ended(opened[-1], 0.1)
    # Those that are not idle keep their places.
    with running(sample, max_connections=3) as port, clients(port, 3, HALF_BODY) as uploads:
        time.sleep(0.3)
        assert served.talk(port, head(b"/health")) == b"" and not any(ended(one, 0.1) for one in uploads)


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a name", "a name"),
    ],
)
def test_addresses_of_a_client(host: str, client: str) -> None:
    assert _client(host) == client


def test_a_new_upload_replaces_the_oldest(sample: served.SampleIndex) -> None:
    with running(sample, max_uploads=2) as port, clients(port, 2, HALF_BODY) as slow:
        time.sleep(0.2)
        assert status(port, form(BY_PATH)) == 200
        reply = slow[0].recv(65536)
        assert reply.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in reply.lower()
        assert b"too many uploads at the same time" in reply and not ended(slow[1], 0.1)


@dataclasses.dataclass(frozen=True)
class Blocked:
    """A model that embeds nothing until it is released."""

    sample: served.SampleIndex
    begun: threading.Event = dataclasses.field(default_factory=threading.Event)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sample.embedder, name)

    def embed(self, images: list[Any]) -> np.ndarray:
        self.begun.set()
        assert self.release.wait(60)
        return self.sample.embedder.embed(images)


@pytest.fixture
def blocked(sample: served.SampleIndex) -> Iterator[Blocked]:
    model = Blocked(sample)
    yield model
    model.release.set()


def in_background(call: Callable[..., bytes], *arguments: Any) -> tuple[threading.Thread, list[bytes]]:
    replies: list[bytes] = []
    thread = threading.Thread(target=lambda: replies.append(call(*arguments)))
    thread.start()
    return thread, replies


def test_a_search_that_takes_too_long_is_refused_and_blocks_nothing_else(
    sample: served.SampleIndex, blocked: Blocked
) -> None:
    with running(sample, blocked, queue_seconds=0.3, search_seconds=1.5) as port:
        first, replies = in_background(served.talk, port, form(BY_IMAGE))
        assert blocked.begun.wait(20)
        start = time.monotonic()
        assert status(port, head(b"/")) == 200 and status(port, head(b"/health")) == 200
        assert time.monotonic() - start <= 1
        waited = served.talk(port, form(BY_PATH))
        assert waited.startswith(b"HTTP/1.1 503 ") and b"other searches take too long" in waited
        assert b"retry-after: 1" in waited.lower()
        first.join(20)
        assert replies[0].startswith(b"HTTP/1.1 503 ") and b"not finished within 1.5 seconds" in replies[0]
        # It still runs, so no other one starts.
        assert status(port, form(BY_PATH)) == 503
        blocked.release.set()
        end = time.monotonic() + 20
        while status(port, form(BY_IMAGE)) != 200:
            assert time.monotonic() < end


MALFORMED = [
    *(head(b"/", b"Origin: " + origin) for origin in (b"http://[", b"", b"\xff", b"http://", b"[", b"://localhost")),
    *(head(b"/", b"Cookie: " + cookie) for cookie in (b'=;;="', b'a="\\', b"\xff=\xff", b'a="' + b"\\a" * 7000)),
    *(head(b"/", line) for line in (b"Authorization: Bearer \xff", b"Sec-Fetch-Site: \xe9", b"No colon", b": x")),
    *(head(b"/", host=host) for host in (b"[", b"[::1", b"localhost:99999", b"localhost:", b"", b"\xff", b"a b")),
    *(head(path) for path in (b"/%", b"/%ff", b"/?token=%ff", b"/image/%00", b"*", b"http://[", b"/" + b"a" * 70_000)),
    *(head(b"/", method=method) for method in (b"", b"\xff", b"TRACE", b"CONNECT", b"A" * 9999)),
    *(form(BY_PATH, b"Content-Type: " + kind) for kind in (
        b"", b"multipart/form-data", b"multipart/form-data; boundary=", b'multipart/form-data; boundary="x',
        b"multipart/form-data; boundary=\xff", b"multipart/form-data; boundary*=utf-7''x",
        b"multipart/form-data; boundary*0=y; boundary*1=z", b"multipart/form-data; boundary=" + b"y" * 300)),
    *(form(b"--x\r\n" + part + b"\r\n\r\n1\r\n--x--\r\n") for part in (
        b"", b"X", b": y", b"Content-Disposition: \xff", b"Content-Disposition: form-data",
        b"Content-Disposition: form-data; name*=klingon''x", b'Content-Disposition: form-data; name="\xff"',
        b"Content-Disposition: form-data; name=\"image\"; filename*=utf-16''%00",
        b'Content-Disposition: form-data; name="_charset_"')),
    head(b"/search", KIND.strip(), b"Transfer-Encoding: chunked", method=b"POST") + b"zz\r\n--x\r\n",
    head(b"/health", b"Transfer-Encoding: chunked", method=b"POST") + b"zz\r\n--x\r\n",
    head(b"/search", b"Expect: 100-continue", b"Content-Length: 9", method=b"POST"),
    head(b"/", b"Upgrade: websocket", b"Connection: Upgrade"),
    head(b"/", b"X: " + b"a" * 100_000),
    b"\0" * 100, b"\x16\x03\x01\x02\0\x01\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n",
]  # fmt: skip


def test_malformed_requests_are_refused_and_nothing_is_printed(
    sample: served.SampleIndex, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(sample) as port:
        for message in MALFORMED:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                reply = b""
                with contextlib.suppress(ConnectionError, BrokenPipeError):
                    connection.sendall(message)
                    connection.shutdown(socket.SHUT_WR)
                    while part := connection.recv(65536):
                        reply += part
            assert not re.search(rb"HTTP/1\.1 5\d\d ", reply), (message[:200], reply[:200])
            assert not reply or re.match(rb"HTTP/1\.1 (200|4\d\d|100) ", reply), (message[:200], reply[:200])
        assert status(port, head(b"/", b"Origin: http://[")) == 403
        assert status(port, head(b"/", host=b"[")) == 400
        assert status(port, form(BY_PATH)) == 200
    assert capfd.readouterr().err == ""


def test_it_stops_in_seconds_whatever_runs(
    sample: served.SampleIndex, blocked: Blocked, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running(sample, blocked))
        search, replies = in_background(served.talk, port, form(BY_IMAGE))
        assert blocked.begun.wait(20)
        for message in (b"", HALF_HEAD, HALF_BODY, form(BY_PATH)):
            stack.enter_context(clients(port, 3, message))
        time.sleep(0.2)
        start = time.monotonic()
        stack.close()
        assert time.monotonic() - start < 8  # seconds
    search.join(10)
    assert replies == [b""] and capfd.readouterr().err == ""


def test_complete_requests_are_answered_before_it_stops(sample: served.SampleIndex, blocked: Blocked) -> None:
    with running(sample, blocked) as port:
        search, replies = in_background(served.talk, port, form(BY_IMAGE))
        assert blocked.begun.wait(20)
        threading.Timer(0.5, blocked.release.set).start()
    search.join(10)
    assert replies[0].startswith(b"HTTP/1.1 200 ")
