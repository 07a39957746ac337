"""README and docs/ as a reader meets them: blocks, commands in running text, links and anchors. Runs nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
GENERATED = ("docs/commands.md", "docs/recipes.md", "docs/how/files.md")
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block; `not_run` is the reason in the comment before it, `file` the name in the paragraph before it."""

    page: str
    line: int
    language: str
    body: str
    not_run: str = ""
    file: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return README and all pages of docs/ that people write, README first."""
    found = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "docs").rglob("*.md"))]
    return ["README.md", *(page for page in found if page not in GENERATED)]


def _tokens(page: str) -> list[Token]:
    return _MARKDOWN.parse((ROOT / page).read_text(encoding="utf-8"))


def blocks(page: str) -> list[Block]:
    """Return the fenced and indented blocks of a page, in order."""
    found, tokens = [], _tokens(page)
    for i, token in enumerate(tokens):
        if token.type not in ("fence", "code_block"):
            continue
        language = token.info.strip() if token.type == "fence" else "bash"
        before = tokens[i - 1] if i else None
        comment = _NOT_RUN.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
        name = (
            re.fullmatch(r"`([\w.-]+)`:", tokens[i - 2].content) if i > 1 and tokens[i - 2].type == "inline" else None
        )
        found.append(Block(page, token.map[0] + 1, language, token.content, comment[1] if comment else "",
                           name[1] if name else ""))  # fmt: skip
    return found


def commands_in_text(page: str) -> Iterator[tuple[int, str]]:
    """Yield (line, command) for whole `weebill …` commands in running text and tables."""
    for token in _tokens(page):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("weebill ") and "…" not in child.content:
                yield token.map[0] + 1, child.content


def links(page: str) -> Iterator[tuple[int, str]]:
    """Yield (line, target) of every link and image."""
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                yield token.map[0] + 1, str(target)
        if token.type in ("html_block", "inline"):
            for target in re.findall(r'(?:src|href|srcset)="([^"]+)"', token.content):
                yield token.map[0] + 1, target


def paths_in_text(page: str) -> Iterator[tuple[int, str]]:
    """Yield (line, path) for `code` that names a file of the repository."""
    for token in _tokens(page):
        for child in token.children or ():
            if child.type == "code_inline" and re.fullmatch(
                r"(src|docs|tests|benchmarks|scripts|recipes|assets)/[\w./-]*\w", child.content
            ):
                yield token.map[0] + 1, child.content


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and mkdocs make them."""
    tokens, found = _tokens(page), set()
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-"))
    return found
