"""Malicious requests: from other pages and hosts, without the token, and with invalid bodies."""

from __future__ import annotations

import re
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import served
from png_files import png

from reid.errors import InputError
from reid.search.serve.limits import Limits

Client = Callable[..., Any]
TOKEN = "a-token-of-this-test"
FIRST = ("path", (None, "0001_c1s1_000101_00.png"))


@pytest.fixture
def page(client: Client, sample: served.SampleIndex) -> Any:
    return client(sample)


@pytest.fixture
def locked(client: Client, sample: served.SampleIndex) -> Any:
    return client(sample, token=TOKEN, loopback=False)


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "127.4.5.6", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine(page: Any, host: str) -> None:
    assert page.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.7",
             "0.0.0.0", "[::2]", "", "a b", "localhost:8000@evil.example", "localhost/..", "2130706433"]
)  # fmt: skip
def test_other_host_names_are_rejected(page: Any, host: str) -> None:
    for reply in (page.get("/", headers={"host": host}), page.post("/search", files=[FIRST], headers={"host": host})):
        assert reply.status_code in (400, 421) and "answers" not in reply.json()


def test_two_host_headers_are_rejected(page: Any) -> None:
    assert page.get("/", headers=[("host", "localhost"), ("host", "evil.example")]).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://localhost:8000"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8000"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
def test_pages_of_other_sites_are_rejected(page: Any, headers: dict[str, str]) -> None:
    reply = page.post("/search", files=[FIRST], headers=headers)
    assert reply.status_code == 403 and "page of another site" in reply.json()["error"]
    assert page.get("/image/0", headers=headers).status_code == 403


def test_our_own_page_and_other_clients_are_accepted(page: Any) -> None:
    ours = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert page.post("/search", files=[FIRST], headers=ours).status_code == 200
    assert page.post("/search", files=[FIRST]).status_code == 200
    # A link on another page may lead to the page, but the page must not be framed.
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert page.get("/", headers=link).status_code == 200
    assert page.get("/", headers={**link, "sec-fetch-dest": "iframe"}).status_code == 403


def test_every_response_has_security_headers(page: Any, locked: Any) -> None:
    for reply in (
        page.get("/"), page.get("/image/99"), page.get("/nowhere"), page.post("/search"), page.get("/health"),
        page.get("/", headers={"host": "evil.example"}), page.options("/search"), locked.get("/"),
        locked.get("/image/0"),
    ):  # fmt: skip
        assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store" and reply.headers["referrer-policy"] == "same-origin"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'nonce-")
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "path",
    [
        *("/image/../../etc/passwd", "/image/..%2f..%2fetc%2fpasswd", "/image/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"),
        *("/image//etc/passwd", "/image/-1", "/image/1e3", "/image/0x0", "/image/99999999999999999999999999"),
        *("/image/9007199254740991", "/image/12", "/image/0001_c1s1_000101_00.png", "/image/", "/image"),
        *("/image/4294967296", "/image/\N{ARABIC-INDIC DIGIT ONE}", "/docs", "/openapi.json", "/static/x", "/search/"),
    ],
)
def test_no_path_leads_anywhere_else(page: Any, path: str) -> None:
    reply = page.get(path)
    assert reply.status_code in (404, 405) and list(reply.json()) == ["error"] and "root:" not in reply.text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../crops/0001_c1s1_000101_00.png", "./0001_c1s1_000101_00.png", "", "\0"]
)
def test_a_search_by_path_is_by_that_of_an_indexed_image(page: Any, path: str) -> None:
    assert page.post("/search", files=[("path", (None, path))]).status_code == 404


# Fewer pixels than the files claim.
ROWS = zlib.compress(bytes(3 * 64 * 128))
GOOD = served.encode_image(served.person(0, 1))
WHOLE = served.encode_image(served.person(0, 1), "JPEG")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"no image at all", "the image: not a JPEG, PNG, BMP or WebP image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the image: not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "the image: not a JPEG"),
        (served.encode_image(served.person(0, 1), "GIF"), "the image: not a JPEG"),
        (served.encode_image(served.person(0, 1), "TIFF"), "the image: not a JPEG"),
        (WHOLE[: len(WHOLE) // 2], "the image: unreadable or truncated image"),
        (GOOD[: len(GOOD) // 2], "the image: unreadable or truncated image"),
        (png(20_000, 10_000, ROWS), "the image: "),
        (png(9_000, 9_000, ROWS), "the image: 9000 x 9000 pixels, above the limit of 50,000,000"),
        (png(2**31 - 1, 2**31 - 1, ROWS), "the image: "),
        (b"", "the image is an empty file"),
    ],
)
def test_unsuitable_uploads(page: Any, data: bytes, line: str) -> None:
    start = time.process_time()
    reply = page.post("/search", files={"image": ("a.jpg", data)})
    assert reply.status_code == 422 and reply.json()["error"].startswith(line)
    assert "0x" not in reply.json()["error"] and "\n" not in reply.json()["error"]
    assert time.process_time() - start < 20  # seconds; decoding a bomb would take far longer, or all memory


def test_uploads_are_bounded_and_never_written_to_disk(
    client: Client, sample: served.SampleIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))  # writing a file would fail
    page = client(sample, limits=Limits(upload_bytes=3_000_000))
    padded = GOOD + bytes(2_900_000 - len(GOOD))
    assert page.post("/search", files={"image": ("a.png", padded)}).status_code == 200
    for size in (3_000_001, 3_070_000, 9_000_000):
        reply = page.post("/search", files={"image": ("a.png", bytes(size))})
        assert reply.status_code == 413 and reply.json()["error"] == "too large: the limit is 3 MB"


HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
KIND = {"content-type": "multipart/form-data; boundary=x"}


def test_a_body_without_a_length_is_cut_off(client: Client, sample: served.SampleIndex) -> None:
    page = client(sample, limits=Limits(upload_bytes=100_000))
    # The test client sends whole bodies, so this needs a real server.
    with served.serving(page.app) as address:
        port = urlsplit(address).port
        assert port
        head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
        start = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(HEAD) + HEAD + b"\r\n"
        received = served.talk(port, start + 3 * chunk)
        assert b" 413 " in received.partition(b"\r\n")[0] and b"connection: close" in received.lower()
        # A claimed length is checked before anything is read.
        received = served.talk(port, head + b"Content-Length: 9000000\r\n\r\n")
        assert b" 413 " in received.partition(b"\r\n")[0]
        for length in (b"-1", b"1_0", b"9" * 400, b"\xb2"):
            received = served.talk(port, head + b"Content-Length: " + length + b"\r\n\r\n")
            assert re.match(rb"HTTP/1\.1 4\d\d ", received), (length, received[:50])
        # A length that is too small ends the body there; the rest must not count as a request.
        received = served.talk(port, head + b"Content-Length: %d\r\n\r\n" % len(HEAD) + HEAD + bytes(100_000))
        assert b" 200 " not in received.partition(b"\r\n")[0]


def test_a_slow_sender_is_dropped(client: Client, sample: served.SampleIndex) -> None:
    page = client(sample, limits=Limits(upload_seconds=0.2))
    with served.serving(page.app) as address:
        port = urlsplit(address).port
        assert port
        head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        received = served.talk(port, head + b"Content-Length: 5000\r\n\r\n" + HEAD)
        assert b" 408 " in received.partition(b"\r\n")[0] and b"not received within 0.2 seconds" in received


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 415),
        (b"id=0", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'{"id": 0}', {"content-type": "application/json"}, 415),
        (b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x; charset=idna"}, 415),
        (b"--x--\r\n", {"content-type": "multipart/form-data"}, 400),
        (b"--x--\r\n", KIND, 400),
        (b"rubbish", KIND, 400),
        (HEAD + b"never ends", KIND, 400),
        (HEAD * 3 + b"a\r\n--x--\r\n", KIND, 400),
        (b'--x\r\nContent-Disposition: form-data; name="camera"\r\n\r\n1\r\n' * 1500 + b"--x--\r\n", KIND, 400),
        (b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n' + b"a" * 80_000 + b"\r\n--x--\r\n", KIND, 400),
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n', KIND, 400),
    ],
)
def test_invalid_forms(page: Any, content: bytes, headers: dict[str, str], status: int) -> None:
    reply = page.post("/search", content=content, headers=headers)
    assert reply.status_code == status and list(reply.json()) == ["error"] and "\n" not in reply.json()["error"]


def test_the_token_is_required(locked: Any) -> None:
    reply = locked.get("/")
    assert reply.status_code == 401 and '<label for="token">' in reply.text and 'id="data"' not in reply.text
    cookie = "reid_session_8000"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{cookie}=wrong"}, {"authorization": TOKEN},
                    {"cookie": f"{cookie}={TOKEN}"}, {"authorization": "Bearer "}, {"cookie": f"{cookie}="},
                    {"authorization": b"Bearer \xe9"}):  # fmt: skip
        for reply in (
            locked.get("/image/0", headers=headers),
            locked.post("/search", files=[FIRST], headers=headers),
            locked.get("/nowhere", headers=headers),
        ):
            assert reply.status_code == 401 and "not logged in" in reply.json()["error"]
    assert locked.get("/health").json() == {"status": "ok"}


def test_the_token_in_a_header(locked: Any) -> None:
    reply = locked.post("/search", files=[FIRST], headers={"authorization": f"Bearer {TOKEN}"})
    assert reply.status_code == 200 and "set-cookie" not in reply.headers


@pytest.mark.parametrize("way", ["address", "form"])
def test_the_token_once_and_then_a_cookie(locked: Any, way: str) -> None:
    def give(token: str) -> Any:
        if way == "address":
            return locked.get("/", params={"token": token})
        return locked.post("/login", data={"token": token})

    for wrong in ("", "wrong", TOKEN + "x", TOKEN[:-1], "\u00e9", "\udc80" if way == "form" else "\x00"):
        try:
            reply = give(wrong)
        except UnicodeEncodeError:  # cannot even be sent
            continue
        assert reply.status_code == 403 and "That is not the token." in reply.text and not reply.cookies
    # A shared address survives the login, without the token and on this server.
    shared = locked.get("/", params={"path": "//a b/\u00fc.png", "camera": "1"})
    assert shared.status_code == 401 and 'action="/login?path=%2F%2Fa+b%2F%C3%BC.png&amp;camera=1"' in shared.text
    reply = locked.post("/login?path=%2F%2Fa&token=x", data={"token": TOKEN})
    assert reply.status_code == 303 and reply.headers["location"] == "/?path=%2F%2Fa"
    locked.cookies.clear()
    reply = give(TOKEN)
    assert reply.status_code == 303 and reply.headers["location"] == "/"
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert TOKEN not in reply.headers["set-cookie"]
    assert 'id="data"' in locked.get("/").text  # the client has kept the cookie
    assert locked.post("/search", files=[FIRST]).status_code == 200


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1:8001", "8001"), ("localhost", "80"), ("[::1]", "80"), ("[::1]:8002", "8002"), ("localhost:", "80")],
)
def test_two_servers_of_a_host_have_two_cookies(locked: Any, host: str, name: str) -> None:
    reply = locked.get("/", params={"token": TOKEN}, headers={"host": host})
    if host.endswith(":"):
        assert reply.status_code == 400
        return
    cookie = reply.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith(f"reid_session_{name}=")
    other = cookie.replace(f"_{name}=", "_9999=")
    statuses = [
        locked.get("/image/99", headers={"host": host, "cookie": sent}).status_code
        for sent in (cookie, other, f"{other}; {cookie}")
    ]
    assert statuses == [404, 401, 404]


def test_the_login_form_is_protected_too(locked: Any) -> None:
    away = {"origin": "http://evil.example"}
    assert locked.post("/login", data={"token": TOKEN}, headers=away).status_code == 403
    assert locked.post("/login", content=bytes(5000)).status_code == 413
    assert locked.post("/login", content=b"&" * 4000).status_code == 403
    assert locked.post("/login", content=b"&".join([b"a=1"] * 900)).status_code == 403


def test_a_page_for_other_machines_needs_a_token(client: Client, sample: served.SampleIndex) -> None:
    with pytest.raises(InputError, match="needs a token"):
        client(sample, loopback=False)
    for weak in (
        "",
        "short",
        "with spaces in it, long",
        "not-only-ascii-\u00e9\u00e9",
        "control\ncharacters-in-it",
    ):
        with pytest.raises(InputError, match="must have at least 16 ASCII characters"):
            client(sample, token=weak)


def test_any_host_name_is_accepted_with_a_token(locked: Any) -> None:
    headers = {"host": "gpu-box.lan:8000", "authorization": f"Bearer {TOKEN}"}
    assert locked.get("/", headers=headers).status_code == 200
    assert locked.get("/", headers={**headers, "host": "a b"}).status_code == 400


def test_internal_errors_reveal_nothing(
    client: Client, sample: served.SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = client(sample, quiet=True)
    monkeypatch.setattr("reid.search.gallery.view.search_snapshot", lambda *_, **__: 1 / 0)
    reply = page.post("/search", files=[FIRST])
    assert reply.status_code == 500 and reply.json()["error"].startswith("internal server error")
    assert "ZeroDivision" not in reply.text and reply.headers["x-content-type-options"] == "nosniff"
