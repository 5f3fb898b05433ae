"""The body of a search request: read into memory up to a limit, never written to disk, and validated."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from reid.errors import InputError
from reid.search.gallery import parse_time_range
from reid.search.serve.limits import Limits, RequestError

# Every malformed form would otherwise write a line to stderr.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())

_OVERHEAD_BYTES = 65_536  # form fields and boundaries in addition to the image
_FIELDS = ("image", "id", "path", "camera", "from", "to", "top", "exclude_same")
_MAX_FIELDS = 1000


@dataclass(frozen=True)
class SearchRequest:
    """A validated search; exactly one of `image`, `id` and `path` is set.

    Attributes:
        image: Content of an uploaded file.
        id: Id of an image of the index.
        path: Path of an image of the index.
        cameras: Cameras of the results; all if empty.
        time_range: First and last time of the results, see `parse_time_range`.
        top_k: Maximum number of results.
        exclude_same: Leave out images with the same content as the query.
    """

    image: bytes | None
    id: int | None
    path: str | None
    cameras: tuple[str, ...]
    time_range: tuple[float, float] | None
    top_k: int
    exclude_same: bool


class _InMemoryParser(MultiPartParser):
    # Starlette would write large files to disk; here the whole body is bounded instead.
    spool_max_size = 2**62


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body of a request up to a limit, regardless of the length in its header.

    Args:
        request: Request whose body has not been read.
        max_bytes: Maximum size of the body in bytes.

    Returns:
        Bytes of the whole body.

    Raises:
        RequestError: If it is too large or incomplete.
    """
    return b"".join([chunk async for chunk in _stream_body(request, max_bytes, f"{max_bytes:,} bytes")])


async def read_search_request(request: Request, limits: Limits) -> SearchRequest:
    """Read and validate a search request.

    Args:
        request: A multipart/form-data request.
        limits: Limits of a request.

    Returns:
        Validated images and options of the search.

    Raises:
        RequestError: If the request is too large or invalid.
    """
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    # Some of Python's codecs need very long for little input.
    if media_type.strip() != "multipart/form-data" or "charset" in parameters:
        raise RequestError(415, "a search must be sent as multipart/form-data in UTF-8")
    stream = _stream_body(request, limits.upload_bytes + _OVERHEAD_BYTES, f"{limits.upload_bytes / 1e6:g} MB")
    parser = _InMemoryParser(
        request.headers, stream, max_files=1, max_fields=_MAX_FIELDS, max_part_size=_OVERHEAD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, f"invalid form: {error.message}") from None
    finally:
        await stream.aclose()
    try:
        return await _validate(form, limits)
    finally:
        await form.close()


async def _stream_body(request: Request, max_bytes: int, limit: str) -> AsyncGenerator[bytes, None]:
    """Yield the body in chunks; `limit` is the maximum size in words."""
    too_large = RequestError(413, f"too large: the limit is {limit}")
    claimed = request.headers.get("content-length", "")
    # Digits only, and few enough to be parsed quickly.
    if claimed.isascii() and claimed.isdecimal() and (len(claimed) > 18 or int(claimed) > max_bytes):
        raise too_large
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise too_large
            yield chunk
    except ClientDisconnect:
        raise RequestError(400, "the connection was closed before the request was complete") from None


async def _validate(form: FormData, limits: Limits) -> SearchRequest:
    unknown = [name for name in form if name not in _FIELDS]
    if unknown:
        raise RequestError(400, f"unknown field {unknown[0][:40]!a}; known are {', '.join(_FIELDS)}")
    queries = [name for name in ("image", "id", "path") if name in form]
    if len(queries) != 1 or isinstance(form[queries[0]], UploadFile) != (queries == ["image"]):
        raise RequestError(400, "a search needs exactly one of: image, a file; id or path of an image of the index")
    image = None
    if isinstance(upload := form[queries[0]], UploadFile):
        image = await upload.read()
        if not image:
            raise RequestError(422, "the image is an empty file")
        if len(image) > limits.upload_bytes:
            raise RequestError(413, f"too large: the limit is {limits.upload_bytes / 1e6:g} MB")
    try:
        time_range = parse_time_range(_text(form, "from").strip(), _text(form, "to").strip())
    except InputError as error:
        raise RequestError(422, str(error)) from None
    return SearchRequest(
        image=image,
        id=_integer(form, "id", 2**53) if "id" in form else None,
        path=_text(form, "path") if "path" in form else None,
        cameras=tuple(camera for camera in form.getlist("camera") if isinstance(camera, str)),
        time_range=time_range,
        top_k=max(1, _integer(form, "top", limits.max_results)) if "top" in form else min(20, limits.max_results),
        exclude_same=_text(form, "exclude_same") not in ("", "0"),
    )


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _integer(form: FormData, name: str, maximum: int) -> int:
    text = _text(form, name).strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) <= maximum):
        raise RequestError(422, f"{name}: must be an integer in [0, {maximum:,}], not {text[:40]!a}")
    return int(text)
