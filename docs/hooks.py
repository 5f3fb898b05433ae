"""Hooks of MkDocs: the pages of the site that are not files of `docs/`, and links that work in both places."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Files outside docs/ -> their pages.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "datasets/README.md": "datasets.md"}
LINK = re.compile(r"\[([^\]]+)\]\(((?!\w+:)[^)#\s]+)(#[^)\s]*)?\)")
# GitHub begins a list or a table below a line of text, Python-Markdown only below an empty line.
GLUED = re.compile(r"^((?![-|#>\s]).+)\n(?=- |\|)", re.MULTILINE)


def modules(package: str) -> list[str]:
    """List the public modules of a package.

    Args:
        package: Name of a package or module in `reid`, such as "io"; "reid" for `reid` itself.

    Returns:
        Dotted names, the package first.
    """
    if package == "reid":
        return ["reid"]
    files = sorted((ROOT / "reid" / package).rglob("*.py")) or [ROOT / "reid" / f"{package}.py"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return sorted(name for name in names if "._" not in name)


def api_pages() -> dict[str, str]:
    """Make the pages of the API reference, one for each package.

    Returns:
        Path of a page -> Markdown that mkdocstrings replaces by the docstrings.
    """
    entries = [path for path in (ROOT / "reid").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = ["reid", *(path.stem for path in entries if not path.name.startswith("_"))]
    shown = {name: modules(name) for name in names}
    # What `reid` imports when it is used.
    text = (ROOT / "reid" / "__init__.py").read_text(encoding="utf-8")
    shown["reid"] += [f"reid.{name}" for name in re.findall(r"^    from \S+ import \w+ as (\w+)$", text, re.MULTILINE)]
    return {f"api/{name}.md": "\n\n".join([f"# {name}", *(f"::: {entry}" for entry in shown[name])]) for name in names}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in `docs/`.

    Args:
        files: `mkdocs.structure.files.Files`.
        config: The configuration of the site.

    Returns:
        The files.
    """
    from mkdocs.structure.files import File

    pages = {page: (ROOT / file).read_text(encoding="utf-8") for file, page in OUTSIDE.items()}
    for path, content in {**pages, **api_pages()}.items():
        files.append(File.generated(config, path, content=content))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change what GitHub and Python-Markdown read differently, and links to files outside `docs/`.

    Args:
        markdown: Text of a page.
        page: The page.

    Returns:
        The text for the site.
    """
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, page: str) -> str:
    """Rewrite a page for the site.

    Args:
        markdown: Text of a page.
        page: Path of the page in the site, such as "use.md".

    Returns:
        The text, where a link to a file of the repository is one to its page, to its module in the API reference, or,
        if it has neither, its text only. A link to a missing file is kept, so that the build fails.
    """
    source = {site: file for file, site in OUTSIDE.items()}.get(page, f"docs/{page}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in OUTSIDE:
            return f"[{text}]({OUTSIDE[path]}{anchor})"
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})"
        if path.endswith(".ipynb"):
            return f"[{text}]({path})" if (ROOT / path).is_file() else match[0]
        if path.startswith("reid/") and path.endswith(".py") and (ROOT / path).is_file():
            parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
            return f"[{text}](api/{parts[1]}.md#{'.'.join(parts)})"
        return text if (ROOT / path).exists() else match[0]

    return GLUED.sub(r"\1\n\n", LINK.sub(link, markdown))
