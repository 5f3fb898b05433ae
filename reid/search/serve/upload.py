"""What a browser sends with a search: read into memory up to a bound, never onto the disk, and checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from reid.errors import InputError
from reid.search.gallery import parse_period
from reid.search.serve.limits import Limits, Refused

_AROUND = 65_536  # bytes beside the image: the other fields and what divides them
_FIELDS = ("image", "id", "path", "camera", "from", "to", "top", "exclude_same")
_MANY = 1000  # cameras and other fields


@dataclass(frozen=True)
class Asked:
    """A search. One of: image, the bytes of a file; id or path of an image of the index.

    cameras: of the answers, all when empty. period: of the answers, see `parse_period`. exclude_same: leave out
    contents equal to the query's.
    """

    image: bytes | None
    id: int | None
    path: str | None
    cameras: tuple[str, ...]
    period: tuple[float, float] | None
    top: int
    exclude_same: bool


class _InMemory(MultiPartParser):
    # Starlette's own would put larger files onto the disk; the body as a whole is bounded instead.
    spool_max_size = 2**62


async def bounded(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request. Raises Refused once it is larger or slower than allowed, whatever it said it would be."""
    return b"".join([chunk async for chunk in _bounded(request, most, seconds, f"{most:,} bytes")])


async def _bounded(request: Request, most: int, seconds: float, told: str) -> AsyncGenerator[bytes, None]:
    too_large = Refused(413, f"too large: at most {told} are taken")
    said = request.headers.get("content-length", "")
    # Digits only, as many as a number that counts can have.
    if said.isascii() and said.isdecimal() and (len(said) > 18 or int(said) > most):
        raise too_large
    stream, read = request.stream(), 0
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            read += len(chunk)
            if read > most:
                raise too_large
            yield chunk
    except TimeoutError:
        raise Refused(408, f"too slow: not sent within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before all was sent") from None


async def read_asked(request: Request, limits: Limits) -> Asked:
    """The search that a request asks for. Raises Refused for what is too large, too slow or makes no sense."""
    kind, _, more = request.headers.get("content-type", "").lower().partition(";")
    # Some of Python's codecs take very long over very little.
    if kind.strip() != "multipart/form-data" or "charset" in more:
        raise Refused(415, "a search is sent as multipart/form-data, in UTF-8")
    told = f"{limits.upload_bytes / 1e6:g} MB"
    stream = _bounded(request, limits.upload_bytes + _AROUND, limits.seconds, told)
    parser = _InMemory(request.headers, stream, max_files=1, max_fields=_MANY, max_part_size=_AROUND)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, f"no form that can be read: {error.message}") from None
    finally:
        await stream.aclose()
    try:
        return await _checked(form, limits)
    finally:
        await form.close()


async def _checked(form: FormData, limits: Limits) -> Asked:
    strange = [name for name in form if name not in _FIELDS]
    if strange:
        raise Refused(400, f"unknown field {strange[0][:40]!a}; known are {', '.join(_FIELDS)}")
    given = [name for name in ("image", "id", "path") if name in form]
    if len(given) != 1 or isinstance(form[given[0]], UploadFile) != (given == ["image"]):
        raise Refused(400, "a search needs one of: image, a file; id or path of an image of the index")
    image = None
    if isinstance(upload := form[given[0]], UploadFile):
        image = await upload.read()
        if not image:
            raise Refused(422, "the image is an empty file")
        if len(image) > limits.upload_bytes:
            raise Refused(413, f"too large: at most {limits.upload_bytes / 1e6:g} MB are taken")
    try:
        period = parse_period(_text(form, "from").strip(), _text(form, "to").strip())
    except InputError as error:
        raise Refused(422, str(error)) from None
    return Asked(
        image=image,
        id=_number(form, "id", 2**53) if "id" in form else None,
        path=_text(form, "path") if "path" in form else None,
        cameras=tuple(camera for camera in form.getlist("camera") if isinstance(camera, str)),
        period=period,
        top=max(1, _number(form, "top", limits.answers)) if "top" in form else min(20, limits.answers),
        exclude_same=_text(form, "exclude_same") not in ("", "0"),
    )


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _number(form: FormData, name: str, most: int) -> int:
    text = _text(form, name).strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) <= most):
        raise Refused(422, f"{name}: a whole number up to {most:,}, not {text[:40]!a}")
    return int(text)
