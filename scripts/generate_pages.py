"""Writes the pages of docs/ that the code itself knows best: commands, recipe keys, every file in a sentence.

python scripts/generate_pages.py       tests/test_docs.py fails when a page is not what this would write
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.cli
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from weebill.cli import app
from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.distill_config import DistillRecipe
from weebill.recipe_files import recipe_names

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "src/weebill/recipes"
NOTE = "<!-- Written by scripts/generate_pages.py (`make docs`): change the code it reads, not this page. -->\n\n"


def main() -> None:
    """Write every page."""
    for name, page in pages().items():
        (ROOT / "docs" / name).write_text(page, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return every generated page by its path below docs/."""
    return {"commands.md": NOTE + commands(), "recipes.md": NOTE + recipes(), "how/files.md": NOTE + files()}


def commands() -> str:
    """Return the command reference, as typer writes it, with whole sentences in its lists."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    page = typer.cli.get_docs_for_click(obj=group, ctx=context, name="weebill")

    def whole(match: re.Match[str]) -> str:
        heading = re.findall(r"^#+ `weebill(.*)`$", page[: match.start()], re.MULTILINE)[-1]
        command = group
        for name in [*heading.split(), match[1]]:
            command = command.commands[name]
        return f"* `{match[1]}`: {' '.join((command.help or '').split(chr(10) * 2)[0].split())}"

    page = re.sub(r"^\* `([\w-]+)`: .*\.\.\.$", whole, page, flags=re.MULTILINE)
    return page.replace("# `weebill`", "# Commands", 1).rstrip() + "\n"


def recipes() -> str:
    """Return tables of the keys of each kind of recipe, with default, range and meaning."""
    out = ["# Recipes\n", "A recipe is a TOML file, or the name of one that comes along. To change one, copy its file "
           "or override keys:\n`--set section.key=value` on the command line, where lists are JSON. An unknown key is "
           "an error that names the nearest\nknown one. A missing key has its default.\n",
           "| recipe | what it does | on what, and what to expect |\n|---|---|---|"]  # fmt: skip
    for name in recipe_names():
        text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
        comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
        purpose, _, rest = comment.partition(" Hardware: ")
        link = f"[`{name}`](../src/weebill/recipes/{name}.toml)"
        out.append(f"| {link} | {purpose} | {rest.partition(' Command: ')[0]} |")
    out.append("\nWhat each command reads:\n")
    for kind in (PretrainRecipe, FinetuneRecipe, DistillRecipe):
        task = kind.model_fields["task"].default
        out.append(f"## `weebill {task}`\n\n{kind.__doc__}\n")
        for section, model in _sections(kind):
            if section:
                out.append(f"### `[{section}]` of {task}\n\n{model.__doc__}\n")
            out.append("| key | default | meaning |\n|---|---|---|")
            rows = [
                f"| `{name}` | {_default(field)} | {_meaning(field)} |"
                for name, field in model.model_fields.items()
                if name != "task" and (_section(field.annotation) is None or _is_list(field.annotation))
            ]
            out.append("\n".join(rows) + "\n")
    return "\n".join(out).rstrip() + "\n"


def _sections(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield prefix, kind
    for name, field in kind.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            path = f"{prefix}.{name}".removeprefix(".")
            yield from _sections(inner, f"[{path}]" if _is_list(field.annotation) else path)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _section(annotation: Any) -> type[BaseModel] | None:
    inner = next(iter(get_args(annotation)), annotation)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is None or value == ():
        return "–"
    return f"`{json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    parts, inner = [field.description or ""], get_args(field.annotation)
    whole = _is_list(field.annotation) or type(None) in inner  # else choices beside something else, which has the words
    for part in (field.annotation, *(inner if whole else ())):
        if get_origin(part) is Literal:
            parts.append(
                ("any of " if _is_list(field.annotation) else "one of ")
                + ", ".join(f"`{choice}`" for choice in get_args(part))
            )
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [f"{words} {getattr(rule, sign):g}" for rule in field.metadata for sign, words in signs.items()
              if getattr(rule, sign, None) is not None]  # fmt: skip
    if bounds:
        parts.append(" and ".join(bounds))
    return "; ".join(part.replace("|", r"\|") for part in parts if part)


def files() -> str:
    """Return the first line of every module: what it does and what it does not."""
    rows = []
    for path in sorted((ROOT / "src" / "weebill").glob("*.py")):
        body = path.read_text(encoding="utf-8")
        first, _, _ = (ast.get_docstring(ast.parse(body)) or "").partition("\n\n")
        sentence = " ".join(first.split()).replace("|", r"\|")
        rows.append(f"| [`{path.name}`](../../src/weebill/{path.name}) | {sentence} |")
    return ("# Every file in a sentence\n\nThe first line of each file says what it does and what it does not; these "
            "are those lines.\nIn which order to read them: [the road and its rooms](index.md).\n\n"
            "| file | |\n|---|---|\n" + "\n".join(rows) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
