"""Recipe files: TOML -> the settings of config.py. Reads no data and starts no training.

A recipe says what to train; the command line may override any key with `--set section.key=value`.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from weebill.config import RecipeT
from weebill.errors import ConfigError

_OF_A_TOKENIZER = ("tokenizer", "vocab_size", "normalizers")


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = resources.files("weebill") / "recipes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_recipe(path_or_name: str, kind: type[RecipeT], overrides: Sequence[str] = ()) -> RecipeT:
    """Read a recipe file, or a shipped recipe by name, and apply `section.key=value` overrides.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key (the nearest known one is named) or a bad value.
    """
    path = Path(path_or_name)
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: expected a recipe in TOML and UTF-8, got: {error}; check the file") from error
    elif path_or_name in recipe_names():
        text = (resources.files("weebill") / "recipes" / f"{path_or_name}.toml").read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(path_or_name, recipe_names(), n=1)
        raise ConfigError(
            f"expected a recipe file or the name of a shipped recipe ({', '.join(recipe_names())}), "
            f"got {path_or_name!r}, which is neither; {f'did you mean {near[0]!r}?' if near else 'check the path'}"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path_or_name}: expected TOML, got a file that does not parse: {error}; correct it"
        ) from error
    for override in overrides:
        _apply_override(values, override)
    recipe = parse_recipe(values, kind, where=path_or_name)
    for override in overrides:  # what the recipe itself says is for runs without start
        if recipe.start is not None and override.partition("=")[0].strip() in _OF_A_TOKENIZER:
            raise ConfigError(f"--set {override}: expected no tokenizer beside start = {recipe.start!r}, which has its "
                              f"own; leave one of them out, or --set start=null")  # fmt: skip
    return recipe


def parse_recipe(values: dict[str, Any], kind: type[RecipeT], where: str) -> RecipeT:
    """Return the checked recipe for a parsed TOML document; `where` names it in errors."""
    task = kind.model_fields["task"].default
    if values.get("task", task) != task:
        raise ConfigError(f"{where}: expected a recipe for `weebill {task}`, got one for `weebill {values['task']}`; "
                          f"run that command instead")  # fmt: skip
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, dict(item), where) for item in error.errors())) from error


def override(recipe: RecipeT, overrides: Iterable[str]) -> RecipeT:
    """Return the recipe with `section.key=value` overrides applied.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    values = recipe.model_dump(mode="json", exclude_unset=True) | {"task": type(recipe).model_fields["task"].default}
    for one in overrides:
        _apply_override(values, one)
    return parse_recipe(values, type(recipe), where="override")


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set expects section.key=value, got {override!r}; for example --set training.epochs=5")
    try:
        value: Any = json.loads(raw)
    except json.JSONDecodeError:
        value = raw
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: expected a section of the recipe before the dot, got the value "
                              f"{section!r}; correct the name")  # fmt: skip
    values[last] = value


def _explain(kind: type[BaseModel], item: dict[str, Any], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    dotted = ".".join(location)
    if item["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        elsewhere = [k for k in _all_keys(kind) if k.split(".")[-1] == location[-1]]
        hint = f"did you mean {'.'.join([*location[:-1], near[0]])!r}?" if near else ""
        hint = hint or (f"did you mean {elsewhere[0]!r}?" if elsewhere else f"known keys: {', '.join(sorted(known))}")
        return f"{where}: unknown key {dotted!r}; {hint}"
    if item["type"] == "tuple_type":
        example = json.dumps([item.get("input")])
        if str(item.get("input")).startswith(("[", "{")):
            return (f"{where}: {dotted}: expected a list, got {item.get('input')!r}; --set takes JSON, as in --set "
                    f"'{dotted}=[{{\"path\": \"rows.jsonl\"}}]'")  # fmt: skip
        return f"{where}: {dotted}: expected a list, got {item.get('input')!r}; write --set '{dotted}={example}'"
    if not dotted and item["type"] == "value_error":  # of several keys together, which it names
        return f"{where}: {item['ctx']['error']}"
    return f"{where}: {dotted or 'recipe'}: {item['msg']}, got {item.get('input')!r}; correct the value"


def _known_keys(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in path:
        if not part.isdigit():  # the number of an item of a list
            section = _section(kind.model_fields[part].annotation) if part in kind.model_fields else None
            if section is None:
                return []
            kind = section
    return list(kind.model_fields)


def _all_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(prefix + name)
        section = _section(field.annotation)
        if section is not None:
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, alone or as a list."""
    inner = next(iter(get_args(annotation)), annotation)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
