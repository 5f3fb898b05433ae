"""Pages out of templates: one file each that opens offline, with every picture inside it and bounded in size."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from reid.errors import InputError
from reid.io.atomic import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """An image that travels inside a page: a data URI, its size in pixels and what it shows in words."""

    src: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Chart:
    """A drawing on a page, for the macro `chart`.

    svg: what `figures.to_svg` made. alt: the chart in words, numbers included, for those who do not see it; the title
    is put before it. wide: across the whole page. small: the same drawing for a narrow screen; without it a wide one is
    scrolled sideways there. key: (color, dashes, label) of each line, for a drawing without a legend of its own; see
    `figures.line_style`.
    """

    title: str
    svg: str
    alt: str
    caption: str = ""
    wide: bool = False
    small: str = ""
    key: tuple[tuple[str, str, str], ...] = ()


def check_available(
    names: Sequence[str] = ("jinja2", "matplotlib"), *, extra: str = "report", what: str = "a report"
) -> None:
    """Raise InputError where the libraries of an extra are missing, which `what` needs; asked before long work."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}: pip install 'reid[{extra}]'")


def render_page(template: str, **values: Any) -> str:
    """The page of `templates/NAME` with `values`, all of them escaped, as text that can be written as UTF-8.

    A value that the template asks for and does not get is an error. Filters: percent (a fraction as 12.3), number
    (1234 as 1,234), sha256 (for the content policy of a page with a script).
    """
    check_available(["jinja2"])
    page = _environment().get_template(template).render(**values)
    # A file name may hold bytes that are no text; a page must not fail for it.
    return page.encode("utf-8", "replace").decode("utf-8")


def write_page(path: Path, page: str) -> Path:
    """Write a page, and the folder it goes to where that is missing; raises InputError where `path` is a folder."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file to write, such as {path / 'page.html'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def picture(image: Image.Image | bytes, *, alt: str, max_side: int, kind: str = "JPEG") -> Picture:
    """An image bounded to `max_side` pixels (never enlarged), encoded anew and so without what its file told besides.

    image: a PIL image or the bytes of an image file. alt: what it shows, in words. kind: "JPEG" for photographs, "PNG"
    for drawings and matrices, without loss. Raises InputError, naming `alt`, where the bytes are no whole image.
    """
    if isinstance(image, bytes):
        try:
            image = Image.open(io.BytesIO(image), formats=("JPEG", "PNG"))
            image.load()
        except Exception as error:  # Pillow tells broken files by whatever its decoders meet
            raise InputError(f"{alt}: no whole image: {' '.join(str(error).split())}") from None
    encoded, size = encode(image, max_side=max_side, kind=kind)
    data = base64.b64encode(encoded).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{data}", *size, alt)


def encode(image: Image.Image, *, max_side: int, kind: str = "JPEG") -> tuple[bytes, tuple[int, int]]:
    """The file of an image bounded to `max_side` pixels (never enlarged), of pixels alone, and its width and height."""
    if max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    if kind == "JPEG" and image.mode != "RGB":
        image = image.convert("RGB")
    encoded = io.BytesIO()
    bare = Image.new(image.mode, image.size)
    if image.mode == "P":
        bare.putpalette(image.getpalette() or [])
    bare.paste(image)
    bare.save(encoded, kind, **({"quality": QUALITY} if kind == "JPEG" else {}), optimize=True)
    return encoded.getvalue(), image.size


def provenance_facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """List what a page says about where its numbers come from.

    Args:
        provenance: As `reid.training.provenance.provenance` returns it; any part may be missing.

    Returns:
        Label to value in the order of the page; a value is None or empty where it is unknown.
    """
    machine, versions = provenance.get("machine") or {}, provenance.get("versions") or {}
    return {
        "command": provenance.get("command"),
        "commit": provenance.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "processor": machine.get("processor"),
        "threads": machine.get("threads"),
        "GPU": machine.get("gpu") or ("none" if machine else None),
    }


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda fraction: f"{100 * fraction:.1f}",
        "number": lambda count: f"{count:,}",
        "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode("utf-8", "replace")).digest()).decode(),
    }
    return environment
