"""Export for the browser: the playground as a folder of static files that reads by itself. Runs nothing in a browser.

index.html, weebill.js      the page and the road in JavaScript      onnxruntime/   onnxruntime-web, of the user's copy
model.onnx, model.json      the graph; tokenizer, labels, golden     examples.f32   embeddings of known utterances
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weebill.artifact import GRAPH, find_model
from weebill.bpe import SPLIT_PATTERNS
from weebill.encodings import ModelTokenizer
from weebill.errors import ArtifactError, ConfigError
from weebill.export import Check, ExportReport, export_onnx
from weebill.files import writing_folder
from weebill.golden import read_golden
from weebill.limits import Limits
from weebill.neighbours import Neighbours, fitting_examples
from weebill.pages import content_security_policy, describe, read_page
from weebill.predictor import Predictor, load
from weebill.schema import Utterance
from weebill.tokenizer import Tokenizer
from weebill.verification import TOLERANCE, verify

FORMAT = "weebill-web"
RUNTIME_VERSION = "1.30.0"  # of onnxruntime-web; another one has other files
RUNTIME = {  # name there -> name here, which every server knows as JavaScript; SHA-256
    "ort.wasm.bundle.min.mjs": (
        "ort.wasm.bundle.min.js",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort-wasm-simd-threaded.wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
ROAD = '<meta name="road" content="server">'  # in the page, where it asks


def export_web(
    folder: Path | str,
    output: Path | str,
    utterances: Sequence[Utterance],
    runtime: Path | None,
    int8: bool = False,
    examples: Sequence[Utterance] | None = None,
) -> ExportReport:
    """Write a folder that any static file server shows as a playground, without a server that reads.

    A model with torch's weights becomes ONNX first, by `export_onnx`; one that is ONNX must be as it was written.
    The page itself compares the golden texts when it is opened, and refuses to read where they come out otherwise.

    Args:
        folder: a model with a byte-level BPE tokenizer, or "tiny".
        output: a new or empty folder, or an older export of this kind to replace.
        utterances: what `export_onnx` compares on.
        runtime: the folder with onnxruntime-web's files, or the package that has it as dist/.
        int8: store weights as int8.
        examples: utterances that the page finds neighbours in, and everybody can read; default: the embedded ones where
            the model knows their intents.

    Raises:
        ArtifactError: `folder` is no model, or changed, or its tokenizer is none that runs in a browser; `output` is
            something else, or cannot be written.
        ConfigError: `runtime` is missing or another one; `int8` and the model is ONNX already.
        MissingExtraError: torch, onnx or onnxruntime is needed and not installed.
    """
    folder, output = find_model(folder), Path(output)
    files = _read_runtime(runtime)
    _check_output(output)
    with tempfile.TemporaryDirectory() as temporary:
        source, checks = folder, list[Check]()
        if not (folder / GRAPH).is_file():
            source = Path(temporary) / "model"
            report = export_onnx(folder, source, utterances, int8)
            if not report.ok:
                return report
            checks += report.checks
        elif int8:
            raise ConfigError(f"--int8: expected a model with torch's weights, got {folder}, which is ONNX already; "
                              f"leave it out, or name the model it was made from")  # fmt: skip
        checks.append(Check("golden texts that differ", "count", len(verify(source).problems()), allowed=0))
        files |= _files(load(source, "onnx"), source, folder.resolve().name, examples)
    checks += [
        Check("onnxruntime-web", "bytes", sum(len(body) for name, body in files.items() if "/" in name)),
        Check("all other files", "bytes", sum(len(body) for name, body in files.items() if "/" not in name)),
    ]
    report = ExportReport("a page for the browser", len(utterances), checks)
    if report.ok:
        _write_folder(output, files)
    return report


def web_tokenizer(tokenizer: ModelTokenizer) -> dict[str, Any]:
    """Return what weebill.js needs of a tokenizer, as JSON values; merges as first, second, merged, first, …

    Raises:
        ArtifactError: no byte-level BPE, or one that splits by a pattern of its own.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise ArtifactError("--format web: expected a model with weebill's byte-level BPE, got one with the tokenizer "
                            "of a BERT, which does not run in the page; serve it: weebill serve FOLDER")  # fmt: skip
    if tokenizer.split_pattern not in SPLIT_PATTERNS:
        raise ArtifactError(f"--format web: expected a tokenizer that splits by {' or '.join(SPLIT_PATTERNS)}, got one "
                            f"with the pattern {tokenizer.split_pattern!r}, which JavaScript may read otherwise; serve "
                            f"the model: weebill serve FOLDER")  # fmt: skip
    prefix, suffix = tokenizer.frame
    return {
        "vocab_size": tokenizer.vocab_size,
        "split_pattern": tokenizer.split_pattern,
        "normalizers": tokenizer.normalizers,
        "trim_offsets": tokenizer.trim_offsets,
        "special_tokens": tokenizer.special_tokens,
        "prefix": prefix,
        "suffix": suffix,
        "byte_ids": tokenizer.byte_ids,
        "merges": [i for (first, second), merged in tokenizer.merges.items() for i in (first, second, merged)],
    }


def _files(predictor: Predictor, source: Path, name: str, examples: Sequence[Utterance] | None) -> dict[str, bytes]:
    """Return names and contents of all files but the runtime's."""
    tokenizer = web_tokenizer(predictor.tokenizer)
    if predictor.transitions is not None or predictor.intent_threshold or predictor.intent_separator is not None:
        raise ArtifactError("--format web: expected a model without a CRF, an intent threshold or several intents of "
                            "a text, which the page does not know, got one with; serve it: weebill serve "
                            "FOLDER")  # fmt: skip
    utterances = fitting_examples(predictor) if examples is None else examples
    known = Neighbours(predictor, utterances) if utterances else None
    model = {
        "format": FORMAT,
        "info": describe(predictor, name, known) | {"on_overflow": "truncate"},
        "tokenizer": tokenizer,
        "tags": predictor.tags,
        "whole_words": predictor.whole_words,
        "touching": predictor.touching,
        "max_text_chars": Limits.max_text_chars,
        "examples": [{"text": u.text, "intent": u.intent} for u in utterances],
        "golden": [row.to_json() for row in read_golden(source)],
        "tolerance": TOLERANCE,
    }
    page = read_page("playground.html")
    policy = content_security_policy(page, " 'self' 'wasm-unsafe-eval'")
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{ROAD.replace("server", "page")}'
    assert page.count(ROAD) == 1
    return {
        "index.html": page.replace(ROAD, head).encode(),
        "weebill.js": read_page("weebill.js").encode(),
        "model.json": json.dumps(model, ensure_ascii=False, separators=(",", ":")).encode(),
        "model.onnx": (source / GRAPH).read_bytes(),
        "examples.f32": known.unit_ND.astype("<f4").tobytes() if known else b"",
    }


def _read_runtime(folder: Path | None) -> dict[str, bytes]:
    """Return onnxruntime-web's files by their names in the export."""
    remedy = (f"get it with `npm pack onnxruntime-web@{RUNTIME_VERSION}`, unpack it, and name its dist folder with "
              f"--runtime FOLDER")  # fmt: skip
    if folder is None:
        raise ConfigError(f"--format web: expected onnxruntime-web {RUNTIME_VERSION}, which runs the model in the "
                          f"browser, got no folder of it; {remedy}")  # fmt: skip
    found = {}
    for name, (here, checksum) in RUNTIME.items():
        path = next((path for path in (folder / name, folder / "dist" / name) if path.is_file()), None)
        if path is None:
            raise ConfigError(f"--runtime: expected the dist folder of onnxruntime-web {RUNTIME_VERSION}, got {folder} "
                              f"without {name}; {remedy}")  # fmt: skip
        body = path.read_bytes()
        if hashlib.sha256(body).hexdigest() != checksum:
            raise ConfigError(f"--runtime: expected {name} of onnxruntime-web {RUNTIME_VERSION}, got {path} with other "
                              f"content: another version, or a damaged copy; {remedy}")  # fmt: skip
        found[f"onnxruntime/{here}"] = body
    return found


def _check_output(folder: Path) -> None:
    if folder.exists() and not _is_web_folder(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ArtifactError(f"{folder}: expected a new or empty folder, or an older export for the browser to replace, "
                            f"got something else; name another --output or move it away")  # fmt: skip


def _is_web_folder(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "model.json").read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the folder beside its place, then move it there."""
    try:
        with writing_folder(folder) as fresh:
            for name, body in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(body)
    except OSError as error:
        raise ArtifactError(f"{folder}: expected a place to write, got: {error}; choose another one") from error
