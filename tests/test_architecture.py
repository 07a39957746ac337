"""The rooms: imports run one way, the torch-free part imports without torch, the public names are what they say."""

import ast
import subprocess
import sys
from pathlib import Path

import weebill

SRC = Path(weebill.__file__).parent
FLOORS = [
    {"errors", "limits", "schema", "encodings"},
    {"expressions"},
    {
        "config",
        "splitting",
        "archives",
        "completeness",
        "graph_check",
        "model_files",
        "files",
        "http_types",
        "interchange",
        "symbol_row",
        "merge_table",
        "memory",
        "normalize",
        "tokenizer_checks",
    },
    {
        "showing",
        "recipe_files",
        "distill_config",
        "bpe",
        "tags",
        "metrics",
        "bootstrap",
        "pair_metrics",
        "geometry",
        "schedule",
        "golden",
        "decoding",
        "attention",
        "download",
        "dropout",
        "micro_batches",
        "precision",
        "grammar",
        "graph_weights",
        "json_items",
    },
    {
        "counting",
        "offsets",
        "generator",
        "soft_tags",
        "swapping",
        "substitution",
        "noise",
        "json_lines",
        "word_files",
        "findings",
    },
    {
        "packed_encoder",
        "linear_models",
        "cooccurrence",
        "rasa_files",
        "spacy_tuples",
        "tables",
        "copies",
        "row_checks",
        "value_checks",
        "label_checks",
        "label_facts",
    },
    {"tokenizer"},
    {"tiktoken_files"},
    {"tokenizer_files", "tokenizer_stats", "formats", "pairs", "templates"},
    {"corpus", "hf_tokenizer", "attention", "bpe_dropout", "windows"},
    {"data", "weights", "datasets", "split_files", "wikipedia"},
    {"artifact"},
    {"sources", "mining", "teacher", "bert", "provenance", "ledger"},
    {"lessons"},
    {"sent_transformer", "heads", "losses", "freezing", "checkpoint"},
    {"multitask", "shrinking"},
    {"backend"},
    {"predictor", "onnx_graph", "features"},
    {"evaluate", "evaluate_pairs", "verification", "joint_teacher", "batching", "neighbours"},
    {"comparison", "export", "conversion", "mending", "http_guard", "pages"},
    {"serve", "web_export"},
    {"report", "pictures", "checking", "page_parts"},
    {"charts", "run_display"},
    {"embedding_pictures", "check_report", "evaluation_page", "attention_maps"},
    {"starting", "task"},
    {"train", "linear_teacher"},
    {"pretraining", "finetuning"},
    {"distilling"},
    {"runs"},
    {"demo", "freezing_table"},
    {"cli_tokenizer", "cli_data", "cli_data_make", "cli_evaluate", "cli_train"},
    {"cli"},
    {"__main__"},
]
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}
SIDEWAYS = {("schema", "errors"), ("data", "artifact")}
SIDEWAYS |= {("tokenizer", "tokenizer_files"), ("tokenizer", "tiktoken_files")}  # when called: what it saves and loads
SIDEWAYS |= {("sent_transformer", "verification"), ("multitask", "verification")}  # when called: `save` runs the road


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("weebill."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "weebill":
            yield from (alias.name for alias in node.names if alias.name in FLOOR)


def test_every_room_has_a_floor():
    assert {p.stem for p in SRC.glob("*.py")} - {"__init__"} <= set(FLOOR)


def test_imports_run_downwards():
    wrong = [
        f"{path.stem} imports {other}"
        for path in SRC.glob("*.py")
        if path.stem != "__init__"
        for other in _imports(path)
        if FLOOR[other] >= FLOOR[path.stem] and (path.stem, other) not in SIDEWAYS
    ]
    assert wrong == []


def test_public_names():
    assert weebill.__all__ == sorted(weebill.__all__)
    for name in weebill.__all__:
        assert getattr(weebill, name).__name__ == name


def test_torch_free_rooms_import_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import weebill, weebill.tokenizer, weebill.tags, weebill.formats, weebill.templates, "
        "weebill.predictor, weebill.evaluate, weebill.evaluate_pairs, weebill.verification, "
        "weebill.export, weebill.report, weebill.cli, weebill.bert, weebill.swapping, weebill.generator, "
        "weebill.split_files, weebill.datasets, weebill.wikipedia, weebill.serve, weebill.conversion, "
        "weebill.checking, weebill.check_report, weebill.web_export"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_model_that_comes_along_runs_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import weebill\n"
        "assert weebill.load('tiny').parse(['wake me up at nine am'])[0].intent"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
