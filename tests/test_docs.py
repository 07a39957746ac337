"""README and docs/ against the code: every python block and quick command run, every other one parsed, links, numbers.

Blocks run page by page, in order, in one folder with stand-ins for the data and models that the pages speak of.
A comment before a block, `<!-- not run: REASON -->`, leaves it at parsing. Training commands are parsed, their recipe
and its overrides read, and a small untrained model is put where the trained one would be.
"""

import ast
import asyncio
import contextlib
import io
import os
import re
import runpy
import shlex
import tokenize
import tomllib
from pathlib import Path

import httpx
import numpy as np
import pytest
import typer
from typer.exceptions import TyperException
from typer.testing import CliRunner

import documents
from documents import ROOT, blocks
from stand_ins import StandIns
from weebill.cli import app
from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.distill_config import DistillRecipe
from weebill.errors import WeebillError
from weebill.predictor import load
from weebill.recipe_files import load_recipe, parse_recipe

RECIPES = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe, "distill": DistillRecipe}
LANGUAGES = {"python", "bash", "console", "json", "jsonl", "toml", "yaml", "text", "ini", "dockerfile", "js", "csv"}
PARSED_ONLY = {"demo", "serve", "fetch"}  # minutes, for ever, a download
COMMANDS = typer.main.get_command(app)


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    return StandIns(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("WEEBILL_CACHE", str(desk.folder / "cache"))
    monkeypatch.delenv("WEEBILL_DATA", raising=False)
    return desk


@pytest.mark.parametrize("page", documents.pages())
def test_blocks(page, at_desk, monkeypatch):
    task, names, answer = "", {}, ""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: expected one of {LANGUAGES}, got {block.language!r}"
        if block.file:
            Path(block.file).write_text(block.body, encoding="utf-8")
        if block.language == "python":
            run_python(block, names)
        elif block.language == "bash":
            for command in split_commands(block.body):
                if "…" in command:  # an example that leaves something out
                    continue
                answer = run_command(command, block.where, bool(block.not_run), at_desk, monkeypatch) or answer
        elif block.language == "console":
            check_console(block, at_desk, monkeypatch)
        elif block.language == "toml":
            task = check_recipe(block, task)
        elif block.language == "json" and answer:
            assert fits(*(re.sub(r"\s", "", text) for text in (block.body, answer))), f"{block.where}: got {answer}"
            answer = ""


# -- python


def run_python(block, names):
    """Run a block statement by statement; a comment behind or below says what a value is, or what is printed."""
    tree = ast.parse(block.body, block.where)
    if block.not_run:
        check_imports(tree, block.where)
        return
    comments = read_comments(block.body)
    for statement in tree.body:
        printed, expected = io.StringIO(), comments.get(statement.end_lineno, "")
        if isinstance(statement, ast.Expr):
            code = compile(ast.Expression(statement.value), block.where, "eval")
            with contextlib.redirect_stdout(printed):
                value = eval(code, names)
            if expected:
                got = printed.getvalue().strip() or show(value)
                assert fits(expected, got), f"{block.where}, line {statement.lineno}: expected {got}"
        else:
            with contextlib.redirect_stdout(printed):
                exec(compile(ast.Module([statement], []), block.where, "exec"), names)
            if isinstance(statement, ast.Assign) and re.fullmatch(r"(float|int|bool)\d* \(.*\)", expected):
                value = names[statement.targets[0].id]
                assert fits(expected, show(value)), f"{block.where}, line {statement.lineno}: expected {show(value)}"


def read_comments(body):
    """Return comments by the line they are behind; lines of nothing but comment belong to the line above them."""
    found, behind = {}, 0
    for token in tokenize.generate_tokens(io.StringIO(body).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.strip().startswith("#")
            at = behind if alone else token.start[0]
            found[at] = f"{found[at]}\n{token.string[2:]}" if alone and at in found else token.string[2:]
        elif token.type == tokenize.NEWLINE:
            behind = token.start[0]
        elif token.type == tokenize.NL and not token.line.strip():
            behind = 0
    found.pop(0, None)
    return found


def show(value):
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def fits(expected, got):
    """Return whether the text is as documented, where … stands for anything; spaces at line ends and breaks are one."""
    words, got = " ".join(str(expected).split()), " ".join(str(got).split())
    return re.fullmatch(re.escape(words).replace("…", ".*"), got) is not None


def check_imports(tree, where):
    """Names that a block imports from weebill exist, though it is not run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("weebill"):
            exec(compile(ast.Module([node], []), where, "exec"), {})


# -- commands


def split_commands(body):
    """Return the commands of a shell block as lists of words; && and ; part them, # begins a comment."""
    lines = body.replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=";&<>|")
        words.whitespace_split, words.commenters = True, "#"
        command = []
        for word in words:
            if word in (";", "&&"):
                yield command
                command = []
            else:
                command.append(word)
        if command:
            yield command


def run_command(words, where, not_run, desk, monkeypatch):
    """Check one command, and run it if it is weebill's and quick; returns what a server answered."""
    name, *rest = words
    name = name.rpartition("/")[2]
    if name == "export":
        variable, value = rest[0].split("=", 1)
        monkeypatch.setenv(variable, os.path.expandvars(value.replace("$PWD", str(Path.cwd()))))
    elif name == "weebill":
        run_weebill([os.path.expandvars(word) for word in rest], where, not_run, desk)
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert rest[0] in targets, f"{where}: make {rest[0]} is no target"
    elif name == "pip":
        check_pip(rest, where)
    elif name in ("python", "python3"):
        check_script(rest, where)
    elif name == "curl":
        return ask_server(rest, where)
    elif name == "jupyter":
        folder = ROOT / "notebooks"
        assert rest[0] == "notebook" and (not folder.exists() or (ROOT / rest[1]).is_file()), f"{where}: {rest[1]}"
    else:
        assert not_run, f"{where}: {name} is a command that this test does not know"
    return ""


def parsed(words, where, whole=True):
    """Parse a command of weebill with its own parser; returns (name, context), None of one that is not to be run.

    Only part of a command, such as `weebill data split --group-by template`, may lack what is needed beside it.
    """
    context, command = typer.Context(COMMANDS, info_name="weebill"), COMMANDS
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        assert name in command.commands, f"{where}: weebill has no command {name!r}"
        command = command.commands[name]
        try:
            context = command.make_context(name, list(words), parent=context)
        except typer.Exit:
            return name, None  # --help
        except TyperException as error:
            if not whole and re.match(r"Missing parameter|Option .* requires an argument", str(error)):
                return name, None
            pytest.fail(f"{where}: weebill {name} {shlex.join(words)}: {error}")
        words = [*getattr(context, "_protected_args", []), *context.args] if hasattr(command, "commands") else []
    return name, context


def check_recipe_of(name, context, where):
    """A recipe that is there is read with its overrides; one in capitals is any."""
    values = context.params
    if not re.fullmatch(r"[A-Z]+", values["recipe"]):
        try:
            load_recipe(values["recipe"], RECIPES[name], values["set"] or ())
        except WeebillError as error:
            pytest.fail(f"{where}: {error}")


DONE = set()


def run_weebill(words, where, not_run, desk):
    name, context = parsed(words, where)
    if context is None:
        return
    if name in RECIPES:
        check_recipe_of(name, context, where)
        desk.model(name, str(context.params["output"]))
    elif not (not_run or name in PARSED_ONLY or tuple(words) in DONE):
        result = CliRunner().invoke(app, words)
        allowed = {0, 1} if {"--min", "--fail-on"} & set(words) else {0}
        assert result.exit_code in allowed, f"{where}: weebill {shlex.join(words)}: {result.exception} {result.output}"
        DONE.add(tuple(words))


def check_pip(words, where):
    """What pip is to install is weebill with extras that exist, or is in requirements.txt."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    for word in words:
        if match := re.fullmatch(r"(?:weebill|\.)\[(.*)\]", word):
            assert set(match[1].split(",")) <= set(extras), f"{where}: pip install {word}"
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file(), f"{where}: {word} is no file"
        elif word[0] not in "-." and word not in ("install", "weebill", "mteb"):
            assert f"\n{word.lower()}==" in pinned, f"{where}: {word} is not in requirements.txt"


def check_script(words, where):
    """A script exists and knows the options it is given."""
    if words[0] == "-m":
        assert words[1] in ("venv", "http.server"), f"{where}: {words}"
        return
    path = ROOT / words[0]
    assert path.is_file(), f"{where}: {words[0]} is no file"
    body = path.read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in body, f"{where}: {words[0]} has no {option}"


def ask_server(words, where):
    """Send what curl would to the model that comes along; returns the answer."""
    from weebill.serve import create_app

    address = next(word for word in words if "localhost" in word or "127.0.0.1" in word)
    body = words[words.index("-d") + 1] if "-d" in words else None

    async def once():
        transport = httpx.ASGITransport(create_app(load(), "tiny"))
        async with httpx.AsyncClient(transport=transport, base_url="http://weebill") as client:
            return await client.request("POST" if body else "GET", "/" + address.partition("/")[2], content=body,
                                        headers={"Content-Type": "application/json"})  # fmt: skip

    response = asyncio.run(once())
    assert response.status_code < 500 and response.status_code != 404, f"{where}: {response.text}"
    return response.text


def check_console(block, desk, monkeypatch):
    """`$ command`, then its output, exactly but for …"""
    for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        words = shlex.split(line)
        assert words[0] == "weebill", f"{block.where}: expected a command of weebill, got {line}"
        name, _ = parsed(words[1:], block.where)
        if block.not_run or name in PARSED_ONLY or name in RECIPES:
            run_weebill(words[1:], block.where, True, desk)
            continue
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{block.where}: {line}: {result.exception} {result.output}"
        shown = fits(expected, result.stdout) or fits(expected, result.output)
        assert shown, f"{block.where}: {line} gives\n{result.output}"


def check_recipe(block, task):
    """Read a recipe; a piece of one, which names no task, as one of the task before it on the page."""
    values = tomllib.loads(block.body)
    task = values.setdefault("task", task)
    if task == "distill":
        values.setdefault("teachers", ["teacher"])
    parse_recipe(values, RECIPES[task], block.where)
    return task


@pytest.mark.parametrize("page", [page for page in documents.pages() if page != "docs/errors.md"])  # has ‹names›
def test_commands_in_running_text(page):
    for line, command in documents.commands_in_text(page):
        where = f"{page}:{line}"
        words = shlex.split(command)[1:]
        if len(words) == 1 or not any(word.startswith("-") for word in words):
            group = COMMANDS
            for word in words:  # a name, such as `weebill data check`, with or without its arguments
                if not hasattr(group, "commands"):
                    break
                assert word in group.commands, f"{where}: weebill has no command {word!r}"
                group = group.commands[word]
            continue
        if words[0] in RECIPES and "--output" not in words:
            words += ["--output", "DIR"]
        name, context = parsed(words, where, whole=False)
        if name in RECIPES and context:
            check_recipe_of(name, context, where)


# -- links, files, pages that the code writes, numbers


@pytest.mark.parametrize("page", [*documents.pages(), *documents.GENERATED])
def test_links(page):
    for line, target in documents.links(page):
        where = f"{page}:{line}: {target}"
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{where} does not exist"
        if anchor and file.suffix == ".md":
            known = documents.anchors(file.resolve().relative_to(ROOT).as_posix())
            assert anchor in known, f"{where}: expected one of {sorted(known)}"
    for line, path in documents.paths_in_text(page):
        found = [ROOT / path, ROOT / "src" / "weebill" / path]
        assert any(place.exists() for place in found), f"{page}:{line}: {path} does not exist"


def test_generated_pages_are_what_the_code_says():
    written = runpy.run_path(str(ROOT / "scripts" / "generate_pages.py"))["pages"]()
    assert {f"docs/{name}" for name in written} == set(documents.GENERATED)
    for name, page in written.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page, f"docs/{name} is old; run: make docs"


def test_every_recipe_key_has_a_meaning_and_its_range():
    rows = [line for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines() if "| `" in line]
    assert [row for row in rows if row.endswith("|  |")] == []
    assert not [row for row in rows if row.startswith("| `intent_threshold`") and "one of `dev`" in row]
    assert [row for row in rows if row.startswith("| `loss`") and "one of `triplet`" in row]


NUMBERS = runpy.run_path(str(ROOT / "scripts" / "write_numbers.py"))


@pytest.mark.parametrize("page", documents.pages())
def test_numbers_are_those_measured(page):
    body = (ROOT / page).read_text(encoding="utf-8")
    written, problems = NUMBERS["write_numbers"](body, NUMBERS["read_values"]())
    assert problems == [], f"{page}: {problems}"
    assert written == body, f"{page} shows other numbers than docs/numbers.toml; run: make docs"


def test_every_table_of_the_readme_has_its_numbers_named():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("|") and not lines[i - 1].startswith("|")]
    assert starts
    assert [i + 1 for i in starts if not lines[i - 1].startswith("<!-- numbers:")] == []


def test_every_number_has_a_command_and_a_date_and_is_shown():
    tables = tomllib.loads((ROOT / "docs" / "numbers.toml").read_text(encoding="utf-8"))
    shown = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in documents.pages())
    names = {name for names, _, _ in NUMBERS["named_blocks"](shown) for name in names}
    for name, table in tables.items():
        assert {"command", "date"} <= set(table), f"{name}: expected a command and a date"
        for command in split_commands(table["command"]):
            if command[0] == "weebill":
                parsed(command[1:], f"docs/numbers.toml: {name}")
    assert NUMBERS["read_values"]().keys() - names == set(), "numbers that no page shows"


def test_a_number_that_moved_is_seen():
    page = "<!-- numbers: a.b _ a.c -->\n| x | y |\n|---|---|\n| `run 3` int8 0.5 | 64 of 1,000 |\n\nIn 7 words.\n"
    written, problems = NUMBERS["write_numbers"](page, {"a.b": "0.75", "a.c": "12"})
    assert (written, problems) == (page.replace("0.5", "0.75").replace("1,000", "12"), [])
    assert "got 3: 0.5 64 1,000" in NUMBERS["write_numbers"](page.replace(" _", ""), {})[1][0][1]
    assert "got 'a.b'" in NUMBERS["write_numbers"](page, {})[1][0][1]


def test_the_readme_is_short_and_its_tree_names_every_file():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("```")[2]
    names = re.findall(r"[\w*]+\.py", tree.partition("```")[0])
    files = {path.name for path in (ROOT / "src" / "weebill").glob("*.py")} - {"__init__.py", "__main__.py"}
    covered = {name: {file for file in files if re.fullmatch(name.replace("*", r"\w*"), file)} for name in names}
    assert [name for name, found in covered.items() if not found] == []
    assert files - set().union(*covered.values()) == set()
    assert 150 <= len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
