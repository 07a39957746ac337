"""Writes docs/errors.md: every error that weebill raises on purpose, read from the code. Runs none of it.

python scripts/errors.py                                                                          (or: make errors)

A message is "where: expected what, got what; remedy". What is filled in stands in ‹›, by the name it has in the code.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLASSES = {"ConfigError", "DataError", "ArtifactError", "TrainingStopped", "TrainingInterrupted", "MissingExtraError",
           "Overloaded", "Refusal"}  # fmt: skip
AREAS = {
    "Recipes, options and the command line": "config distill_config recipe_files cli cli_evaluate cli_data "
    "cli_data_make cli_tokenizer demo runs provenance",
    "Files of data": "files formats json_lines json_items word_files rasa_files spacy_tuples tables interchange pairs "
    "corpus conversion checking mending copies row_checks value_checks label_checks label_facts split_files splitting "
    "data schema",
    "Templates and generated data": "grammar expressions templates generator swapping",
    "Downloads (weebill data fetch)": "download datasets completeness archives wikipedia",
    "Tokenizers": "bpe tokenizer tokenizer_files tiktoken_files tokenizer_checks hf_tokenizer normalize "
    "counting tokenizer_stats",
    "Model folders": "artifact weights model_files golden verification bert graph_check multitask sent_transformer "
    "backend predictor checkpoint __init__",
    "Training": "train precision starting shrinking pretraining finetuning distilling sources mining lessons teacher "
    "joint_teacher linear_models linear_teacher soft_tags freezing losses heads bpe_dropout",
    "Evaluation and pictures": "evaluate evaluate_pairs pair_metrics metrics comparison bootstrap report run_display "
    "pictures embedding_pictures neighbours",
    "Export": "export onnx_graph graph_weights web_export pages",
    "Serving": "serve http_guard http_types batching",
}
INTRODUCTION = """# Errors

Made by `make errors` from the code. Every error a user can cause is a `WeebillError`; the command line prints it in
one line and ends with exit code 2 (130 after Ctrl-C), the server answers with its `error_type`. Words in ‹› are filled
in. An option that the command line does not know, or that lacks a value, is explained by its `--help`.

| class | when |
|---|---|
| `ConfigError` | a recipe or an option is wrong |
| `DataError` | a data file is missing, empty, malformed or contradicts itself |
| `TrainingStopped` | a `DataError`: loss or gradient became no finite number |
| `ArtifactError` | a folder or file is not the model or tokenizer it should be, or could not be written |
| `TrainingInterrupted` | Ctrl-C: the run stopped after a step and can go on |
| `MissingExtraError` | an optional dependency is not installed |
| `Overloaded` | the server has as many texts waiting as it accepts |
| `Refusal` | the server refuses a request; `error_type` before the message |
"""


@dataclass(frozen=True)
class Raised:
    """One place that makes an error: where, and its message in parts."""

    module: str
    line: int
    kind: str
    cause: str
    remedy: str


def raised() -> list[Raised]:
    """Return every error of the package, in order of module and line."""
    found = []
    for path in sorted((ROOT / "src" / "weebill").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = _constants(tree)
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in ast.walk(tree):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if isinstance(node, ast.Call) and name in CLASSES and node.args:
                inside = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
                names = constants | (_local_texts(inside[-1]) if inside else {})
                message = _message(name, node, names)
                if " " in message.strip("‹›"):  # else it passes on the message of another
                    found.append(Raised(path.stem, node.lineno, name, *_parts(message)))
    return found


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    """Return the texts of several words that are constants of a module."""
    return {target.id: node.value for node in module.body if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)
            and isinstance(node.value, ast.Constant) and " " in str(node.value.value)}  # fmt: skip


def _local_texts(function: ast.AST) -> dict[str, ast.expr]:
    """Return the texts that a function gives names to, each named once."""
    texts: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.JoinedStr() | ast.Constant() | ast.IfExp()):
                texts.setdefault(name, []).append(node.value)
    return {name: values[0] for name, values in texts.items() if len(values) == 1}


def _message(kind: str, call: ast.Call, names: dict[str, ast.expr]) -> str:
    if kind == "MissingExtraError":
        package, extra, purpose = (_text(argument, names) for argument in call.args[:3])
        return f"{purpose} needs {package}, which is not installed; run: pip install 'weebill[{extra}]'"
    if kind == "Refusal" and len(call.args) > 1:
        return f"{_text(call.args[0], names)}: {_text(call.args[1], names)}"
    return _text(call.args[0], names)


def _text(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """Return a text as it will read, with what is filled in as ‹name›."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(_text(value, names) for value in values)
        case ast.FormattedValue(value=value):
            return _text(value, names)
        case ast.IfExp(body=body, orelse=orelse):
            either = [_text(branch, names) for branch in (body, orelse)]
            return " / ".join(text for text in either if text.strip())
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, names) + _text(right, names)
        case ast.Name(id=name) if name in names:
            return _text(names[name], {key: value for key, value in names.items() if key != name})
    return f"‹{_short(node)}›"


def _short(node: ast.expr) -> str:
    """Return the word that says best what an expression is."""
    match node:
        case ast.Name(id=name):
            return name.strip("_").lower() if name.isupper() else name
        case ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _short(value)
        case ast.Call(func=ast.Attribute(attr="join"), args=[inner]):
            return _short(inner)
        case ast.Call(
            func=ast.Name(id="len" | "repr" | "str" | "sorted" | "type" | "short" | "list" | "map"), args=args
        ) if args:
            return _short(args[-1])
        case ast.GeneratorExp(generators=[first, *_]) | ast.ListComp(generators=[first, *_]):
            return _short(first.iter)
        case ast.Call(func=ast.Attribute(value=value)):
            return _short(value)
        case ast.Call(func=function):
            return _short(function)
        case ast.BinOp(left=left) | ast.BoolOp(values=[left, *_]):
            return _short(left)
    return "…"


def _parts(message: str) -> tuple[str, str]:
    """Return what is said to be wrong, and what to do: after the last "; ", or what follows "; run" and the like."""
    message = " ".join(message.split())
    cause, mark, remedy = message.rpartition("; ")
    return (cause, remedy) if mark else (message, "")


def lines(found: list[Raised]) -> Iterator[str]:
    """Yield the page."""
    yield INTRODUCTION
    for area, modules in AREAS.items():
        some = [one for name in modules.split() for one in found if one.module == name]
        if not some:
            continue
        yield f"\n## {area}\n\n| what is said | what to do | class | in |\n|---|---|---|---|\n"
        done = set[tuple[str, str]]()
        for one in some:
            if (one.cause, one.remedy) not in done:
                done.add((one.cause, one.remedy))
                yield f"| {_cell(one.cause)} | {_cell(one.remedy)} | `{one.kind}` | `{one.module}.py` |\n"


def _cell(text: str) -> str:
    text = re.sub(r"([*_<>])", r"\\\1", text) if "`" not in text else text
    return text.replace("|", "\\|")


def page() -> str:
    """Return docs/errors.md as it should be."""
    return "".join(lines(raised()))


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(page(), encoding="utf-8")
