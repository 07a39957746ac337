"""Writes the measured numbers of docs/numbers.toml where README.md and docs/ show them; measures nothing itself.

python scripts/write_numbers.py       tests/test_docs.py fails when a page shows another number

A comment before a table, a paragraph or a list names the numbers in it, in order; `_` is one that nobody measured:

    <!-- numbers: _ tiny.intent tiny.slot_f1 -->
    On 2,033 utterances it reads 87.60 % of intents, slot F1 80.17.

Numbers in `code` and in the targets of links do not count, nor do those inside words, such as int8.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMENT = re.compile(r"^<!-- numbers:([^>]*)-->\n+(.*?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.,@-])\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
HIDDEN = re.compile(r"`[^`]*`|\]\([^)]*\)|https?://\S+")


def main() -> None:
    """Rewrite the pages whose numbers changed, and name what is wrong otherwise."""
    values, problems = read_values(), []
    for path in pages():
        body = path.read_text(encoding="utf-8")
        written, wrong = write_numbers(body, values)
        problems += [f"{path.relative_to(ROOT)}:{line}: {problem}" for line, problem in wrong]
        if written != body:
            path.write_text(written, encoding="utf-8")
    if problems:
        sys.exit("\n".join(problems))


def pages() -> list[Path]:
    """Return the pages that may show numbers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_values() -> dict[str, str]:
    """Return every number by its name, "table.key"; a table's command and date say how and when it was measured."""
    tables = tomllib.loads((ROOT / "docs" / "numbers.toml").read_text(encoding="utf-8"))
    return {f"{name}.{key}": value for name, table in tables.items() for key, value in table.items()
            if key not in ("command", "date", "on")}  # fmt: skip


def named_blocks(body: str) -> list[tuple[list[str], list[re.Match[str]], int]]:
    """Return (names, the numbers of the block as matches in `body`, line) for every comment."""
    blocks = []
    for comment in COMMENT.finditer(body):
        start, end = comment.span(2)
        masked = HIDDEN.sub(lambda hidden: "x" * len(hidden[0]), body[start:end])
        found = list(NUMBER.finditer(" " * start + masked))
        blocks.append((comment[1].split(), found, body.count("\n", 0, comment.start()) + 1))
    return blocks


def write_numbers(body: str, values: dict[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """Return the page with current numbers, and (line, what is wrong) for comments that do not fit their block."""
    changes, problems = [], []
    for names, found, line in named_blocks(body):
        if len(names) != len(found):
            problems.append((line, f"expected {len(names)} numbers below, got {len(found)}: "
                                   f"{' '.join(match[0] for match in found)}; name each, or _"))  # fmt: skip
            continue
        for name, match in zip(names, found, strict=True):
            if name != "_" and name not in values:
                problems.append((line, f"expected a number of docs/numbers.toml, got {name!r}; add it there"))
            elif name != "_":
                changes.append((match, values[name]))
    for match, value in reversed(changes):
        body = body[: match.start()] + value + body[match.end() :]
    return body, problems


if __name__ == "__main__":
    main()
