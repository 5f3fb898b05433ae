"""HTML pages from templates. A page is one file that opens offline and holds all of its images, bounded in size."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from reid.errors import InputError, install_command
from reid.io.atomic import write_text
from reid.report.tables import percent

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """An image embedded in a page.

    Attributes:
        src: `data:` URI of the encoded image.
        width: Width in pixels.
        height: Height in pixels.
        alt: Text shown in place of the image.
    """

    src: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Chart:
    """A chart on a page, rendered by the macro `chart`.

    Attributes:
        title: Heading above the drawing.
        svg: The drawing, from `figures.to_svg`.
        alt: Text alternative including the numbers. The page puts the title before it.
        caption: Text below the drawing.
        wide: Whether it spans the page.
        small: The same drawing for a narrow screen. A wide chart without one scrolls sideways there.
        key: (color, dashes, label) of each line, for a drawing without a legend; see `figures.line_style`.
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
    """Check that optional libraries are installed, to be called before long work.

    Args:
        names: Names of the modules to import.
        extra: The extra of this package that installs them.
        what: What needs them, for the message.

    Raises:
        InputError: If a library is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}: {install_command(extra)}")


@functools.lru_cache
def template_environment(folder: Path, **options: Any) -> Environment:
    """Create a Jinja environment in which an undefined variable is an error.

    The same one for the same arguments, so that a template is compiled once in a process.

    Filters: percent (0.123 as 12.3), number (1234 as 1,234), sha256 (base64, for the content security policy of a page
    with a script).

    Args:
        folder: Folder of the templates.
        **options: More options of `jinja2.Environment`, such as `autoescape`.

    Returns:
        Environment that loads templates from `folder`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    environment.filters |= {
        "percent": percent,
        "number": lambda count: f"{count:,}",
        "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode("utf-8", "replace")).digest()).decode(),
    }
    return environment


def render_page(template: str, **values: Any) -> str:
    """Render a template of `templates/`, with every value escaped.

    Args:
        template: File name of the template.
        **values: Variables of the template; a missing one is an error.

    Returns:
        The page, which can be encoded as UTF-8.

    Raises:
        InputError: If Jinja is not installed.
    """
    check_available(["jinja2"])
    page = template_environment(TEMPLATES, autoescape=True).get_template(template).render(**values)
    # File names may contain undecodable bytes, which must not prevent writing the page.
    return page.encode("utf-8", "replace").decode("utf-8")


def page_folder(kind: str, file: Path, against: Path | None = None) -> Path:
    """Choose the default folder for what a command writes about a file, so that commands do not overwrite each other.

    Args:
        kind: What is written, such as "diagnosis".
        file: A checkpoint of a run, or any other file of weights or features.
        against: A file that it is compared with.

    Returns:
        `RUN/KIND_NAME` for a checkpoint in the run folder RUN, else a folder of this name next to the file; with
        `against` `KIND_NAME_vs_OTHER`.
    """
    folder, name = _run_folder(file), f"{kind}_{file.stem}"
    if against is None:
        return folder / name
    # Checkpoints of different runs have the same names.
    other = _run_folder(against)
    run = "" if other.resolve() == folder.resolve() else f"{other.resolve().name}_"
    return folder / f"{name}_vs_{run}{against.stem}"


def _run_folder(file: Path) -> Path:
    folder = file.parent if file.parent.name else file.parent.resolve()
    return folder.parent if folder.name == "checkpoints" else folder


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Shorten paths to names that still differ.

    Args:
        paths: Files or folders, relative or absolute.

    Returns:
        The name of each, preceded by as many of its folders as are needed.

    Raises:
        InputError: If two paths are the same file.
    """
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError(f"{paths[0]} is compared with itself; give another checkpoint to --against")
    lengths = [1] * len(parts)
    while True:
        names = [Path(*part[-length:]).as_posix() for part, length in zip(parts, lengths, strict=True)]
        clashing = [i for i, name in enumerate(names) if names.count(name) > 1 and lengths[i] < len(parts[i])]
        if not clashing:
            return names
        for i in clashing:
            lengths[i] += 1


def write_page(path: Path, page: str) -> Path:
    """Write a page and create its folder if needed.

    Args:
        path: File to write.
        page: Complete HTML document.

    Returns:
        `path`.

    Raises:
        InputError: If the path is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file to write, such as {path / 'page.html'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def picture(image: Image.Image, *, alt: str, max_side: int, kind: str = "JPEG") -> Picture:
    """Embed an image, re-encoded at a bounded size and therefore without its metadata.

    Args:
        image: PIL image of any size and mode.
        alt: Text shown in place of the image.
        max_side: Largest width and height in pixels. Smaller images are not enlarged.
        kind: "JPEG" for photographs, or "PNG" for drawings and matrices (lossless).

    Returns:
        Encoded image as a `data:` URI, with its size.
    """
    encoded, size = encode(image, max_side=max_side, kind=kind)
    data = base64.b64encode(encoded).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{data}", *size, alt)


def encode(image: Image.Image, *, max_side: int, kind: str = "JPEG") -> tuple[bytes, tuple[int, int]]:
    """Encode an image at a bounded size, without metadata.

    Args:
        image: PIL image of any size and mode.
        max_side: See `picture`.
        kind: See `picture`.

    Returns:
        The bytes of the file, and (width, height) in pixels.
    """
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
