"""The model folder on disk: reads and writes it whole, as data (JSON and safetensors). Runs no model; no torch.

config.json, model.safetensors, tokenizer.json, modules.json, 1_Pooling/, 2_Dense/ …  a sentence-transformers model
heads/config.json, heads/model.safetensors                                           weebill's intent and tag heads
heads/transitions.safetensors                                                        a CRF's, for the decoder
model.onnx                                                                           instead of all weights, if exported
golden.jsonl                                                                         what the model gave for fixed texts
weebill.json                                                                         format_version, encoder, number of
                                                                                     parameters, training, SHA-256 of
                                                                                     the files above
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.numpy import save

from weebill.config import EncoderConfig, HeadsConfig
from weebill.decoding import Transitions
from weebill.encodings import ModelTokenizer
from weebill.errors import ArtifactError
from weebill.files import writing_folder
from weebill.golden import DECODING_VERSION, Golden, write_golden
from weebill.graph_weights import Arrays, read_graph_weights
from weebill.hf_tokenizer import load_tokenizer
from weebill.model_files import check_folder, inside, read_json
from weebill.weights import check_weights, count_parameters, read_arrays, weight_shapes

FORMAT_VERSION = 1  # when it rises, and what stays readable: docs/model-folder.md
MAX_LABELS = 10_000  # intents, and tags: of these the decoder looks at pairs
GRAPH, WEIGHTS, TRANSITIONS = "model.onnx", "model.safetensors", "transitions.safetensors"
SHIPPED = "tiny"  # the name of the model in assets/
NOTES = ("log.jsonl", "ledger.jsonl", "curves.png", "tensorboard")  # of a run, beside its model


@dataclass(frozen=True)
class Graph:
    """A model as ONNX, and what was found when it was checked (export.py)."""

    body: bytes
    checks: Mapping[str, Any]


@dataclass(frozen=True)
class Heads:
    """Labels, shape and weights of the two heads; the transitions of a CRF are beside the weights, for the decoder."""

    intents: list[str]
    tags: list[str]
    config: HeadsConfig
    arrays: Arrays
    transitions: Transitions | None = None

    def all_arrays(self) -> Arrays:
        """Return the weights and the transitions by the names they have in the model."""
        chain = self.transitions._asdict() if self.transitions else {}
        return self.arrays | {f"tag_head.crf.{name}": array for name, array in chain.items()}


@dataclass(frozen=True)
class StoredModel:
    """Everything a model folder holds."""

    config: EncoderConfig
    tokenizer: ModelTokenizer
    arrays: Arrays
    heads: Heads | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


def find_model(folder: Path | str) -> Path:
    """Return the folder itself, or where the model is that comes with weebill, if it is named and no such folder."""
    folder = Path(folder)
    if str(folder) == SHIPPED and not folder.exists():
        return Path(str(resources.files("weebill"))) / "assets" / SHIPPED
    return folder


def is_model_folder(folder: Path) -> bool:
    """Return whether `folder` claims to be a weebill model."""
    return (folder / "weebill.json").is_file()


def check_output(folder: Path) -> None:
    """Refuse an output folder that holds something else than an older weebill model, as all in it is replaced.

    Raises:
        ArtifactError: the folder exists, is not empty and is no weebill model, or not that alone.
    """
    if folder.exists() and not is_model_folder(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ArtifactError(f"{folder}: expected a new or empty folder, or a weebill model to replace, got something "
                            f"else; name another --output or move it away")  # fmt: skip
    if is_model_folder(folder) and (others := _beside_the_model(folder)):
        raise ArtifactError(f"{folder}: expected a weebill model alone, as a new one takes its whole place, got beside "
                            f"it {', '.join(others)}; move that away, or name another --output")  # fmt: skip


def _beside_the_model(folder: Path) -> list[str]:
    try:
        written = json.loads((folder / "weebill.json").read_bytes())["files"]
        known = {Path(name).parts[0] for name in written} | {"weebill.json", *NOTES}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return []  # a damaged one, which says nothing of its files
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


def write_model(
    folder: Path,
    config: EncoderConfig,
    tokenizer: ModelTokenizer,
    arrays: Arrays,
    heads: Heads | None = None,
    training: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str | bytes] | None = None,
    golden: Sequence[Golden] = (),
    graph: Graph | None = None,
) -> None:
    """Write the folder beside its place, then move it there: readers see the old model or the new one, never half.

    Args:
        extra_files: name and content of notes beside the model; they are no part of it, so no checksum covers them.
        golden: what the model gives for `golden.GOLDEN_TEXTS`; without them `verify` has nothing to compare with.
        graph: written in the place of all weights.

    Raises:
        ArtifactError: `folder` holds something that is no weebill model, or cannot be written.
    """
    check_output(folder)
    try:
        with writing_folder(folder) as fresh:
            _fill(fresh, config, tokenizer, arrays, heads, training or {}, golden, graph)
            for name, body in (extra_files or {}).items():
                (fresh / name).parent.mkdir(exist_ok=True)
                (fresh / name).write_bytes(body.encode("utf-8") if isinstance(body, str) else body)
    except OSError as error:
        kept = "; the previous one is whole" if folder.exists() else ""
        raise ArtifactError(f"{folder}: expected a place to write the model, got: {error}{kept}; make room, or choose "
                            f"another place") from error  # fmt: skip


def _fill(
    folder: Path,
    config: EncoderConfig,
    tokenizer: ModelTokenizer,
    arrays: Arrays,
    heads: Heads | None,
    training: Mapping[str, Any],
    golden: Sequence[Golden],
    graph: Graph | None,
) -> None:
    tokenizer.save(folder, config.max_seq_len)
    _json(folder / "config.json", _bert_config(config, tokenizer))
    if graph is None:
        _fill_encoder(folder, config, arrays)
    else:
        (folder / GRAPH).write_bytes(graph.body)
    if heads is not None:
        (folder / "heads").mkdir()
        if graph is None:
            _weights(folder / "heads" / WEIGHTS, heads.arrays)
        if heads.transitions is not None:
            _weights(folder / "heads" / TRANSITIONS, heads.transitions._asdict())
        _json(
            folder / "heads" / "config.json",
            {"intents": heads.intents, "tags": heads.tags, "heads": heads.config.model_dump(exclude_none=True)},
        )
    if golden:
        write_golden(folder, golden)
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    meta = {
        "format_version": FORMAT_VERSION,
        "encoder": config.model_dump(),
        "parameters": count_parameters(config, tokenizer.vocab_size, heads.all_arrays() if heads else None),
        "training": dict(training),
        "decoding_version": DECODING_VERSION,
    }
    if graph is not None:
        meta["onnx"] = dict(graph.checks)
    _json(folder / "weebill.json", meta | {"files": files})


def _fill_encoder(folder: Path, config: EncoderConfig, arrays: Arrays) -> None:
    """Write the encoder's weights, and what makes a sentence-transformers model of the folder."""
    encoder = {name: array for name, array in arrays.items() if not name.startswith("linear.")}
    _weights(folder / WEIGHTS, encoder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")][: 3 if config.projection else 2]
    _json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
         for i, (path, name) in enumerate(modules)],
    )  # fmt: skip
    _json(
        folder / "config_sentence_transformers.json",
        {"__version__": {}, "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    _json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config.max_seq_len, "do_lower_case": False, "model_args": {"add_pooling_layer": False}},
    )
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    chosen = {"cls": "cls_token", "mean": "mean_tokens"}[config.pooling]
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.hidden_dim}
        | {f"pooling_mode_{mode}": mode == chosen for mode in modes}
        | {"include_prompt": True},
    )
    if config.projection:
        (folder / "2_Dense").mkdir()
        _json(
            folder / "2_Dense" / "config.json",
            {
                "in_features": config.hidden_dim,
                "out_features": config.embedding_dim,
                "bias": True,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        dense = {name: array for name, array in arrays.items() if name.startswith("linear.")}
        _weights(folder / "2_Dense" / WEIGHTS, dense)


def _weights(path: Path, arrays: Arrays) -> None:
    path.write_bytes(save(arrays, metadata={"format": "pt"}))  # save_file hides a full disk in an error of its own


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bert_config(config: EncoderConfig, tokenizer: ModelTokenizer) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": config.max_seq_len,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": config.layer_norm_eps,
        "position_embedding_type": "absolute",
        "pad_token_id": tokenizer.pad_id,
        "use_cache": False,
        "is_decoder": False,
        "add_cross_attention": False,
        "classifier_dropout": None,
        "torch_dtype": "float32",
    }


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        fetch = (
            "" if folder.parent.exists() else f", or from the Hugging Face Hub: hf download {folder} --local-dir DIR"
        )
        raise ArtifactError(f"{folder}: expected a weebill model folder, got {what}; "
                            f"`weebill finetune … --output {folder}` makes one{fetch}")  # fmt: skip
    if not is_model_folder(folder):
        remedy = "name the folder given as --output in training"
        if inside := [str(path.parent) for path in sorted(folder.glob("*/weebill.json"))]:
            remedy = f"name {' or '.join(inside)}"
        elif (folder / "config.json").is_file():
            remedy = f"from a BERT a model learns: weebill finetune joint-bert --set start={folder}"
        raise ArtifactError(f"{folder}: expected a weebill model folder, got one without weebill.json; {remedy}")
    check_folder(folder)
    meta = read_json(folder / "weebill.json", dict)
    version = meta.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        newer = type(version) is int and version > FORMAT_VERSION
        remedy = "upgrade weebill (git pull, pip install .)" if newer else "copy the folder again"
        raise ArtifactError(f"{folder / 'weebill.json'}: expected format_version {FORMAT_VERSION}, got {version!r}; "
                            f"{remedy}")  # fmt: skip
    return meta


def read_model(folder: Path, weights: bool = True) -> StoredModel:
    """Read a model folder whole and check that its parts fit each other.

    Args:
        folder: of the model.
        weights: False leaves the weights out. Those of an exported model are read from its graph.

    Raises:
        ArtifactError: not a folder, not a weebill model, a newer format, a missing or damaged file.
        MissingExtraError: onnx is needed for a graph and not installed.
    """
    meta = _read_meta(folder)
    try:
        config = EncoderConfig.model_validate(meta.get("encoder"))
    except ValidationError as error:
        raise ArtifactError(f"{folder / 'weebill.json'}: expected the shape of an encoder under 'encoder', got "
                            f"{_first(error)}; copy the folder again") from error  # fmt: skip
    for name in ("tokenizer.json", "heads/config.json"):
        if name in meta.get("files", ()) and not (folder / name).is_file():
            raise ArtifactError(f"{folder / name}: expected a file, as weebill.json lists it, got nothing there; copy "
                                f"the folder again")  # fmt: skip
    tokenizer = load_tokenizer(folder)
    heads = _read_heads(folder / "heads")
    arrays: Arrays = {}
    if weights:
        if has_graph_alone(folder):
            shapes = weight_shapes(config, tokenizer.vocab_size)
            arrays, head_arrays = read_graph_weights(folder / GRAPH, shapes, heads.config if heads else None)
        else:
            arrays = read_arrays(folder / WEIGHTS)
            if config.projection:
                arrays |= read_arrays(folder / "2_Dense" / WEIGHTS)
            head_arrays = read_arrays(folder / "heads" / WEIGHTS) if heads else {}
        check_weights(folder, arrays, config, tokenizer)
        heads = replace(heads, arrays=head_arrays) if heads else None
    training = meta.get("training", {})
    if not isinstance(training, dict):
        raise ArtifactError(f"{folder / 'weebill.json'}: expected an object under 'training', got "
                            f"{type(training).__name__}; copy the folder again")  # fmt: skip
    return StoredModel(config, tokenizer, arrays, heads, training)


def has_graph_alone(folder: Path) -> bool:
    """Return whether a model folder was exported: it has a graph in the place of weights."""
    return (folder / GRAPH).is_file() and not (folder / WEIGHTS).is_file()


def compare_files(folder: Path) -> dict[str, str]:
    """Return how each file of a model compares, byte for byte, with what was written: "same", "changed" or "missing".

    Covers every file but weebill.json itself, which holds the checksums, and notes such as log.jsonl.

    Raises:
        ArtifactError: not a weebill model, or one written before there were checksums.
    """
    files = _read_meta(folder).get("files")
    if not isinstance(files, dict) or not files:
        raise ArtifactError(f"{folder / 'weebill.json'}: expected the checksums of the model's files, got none: an "
                            f"older weebill wrote it; train it again, or load and save it")  # fmt: skip
    found = {}
    for name, digest in files.items():
        path = inside(folder, name)
        found[name] = "missing" if not path.is_file() else "same" if _sha256(path) == digest else "changed"
    return found


def _read_heads(folder: Path) -> Heads | None:
    if not folder.is_dir():
        return None
    meta = read_json(folder / "config.json", dict)
    try:
        config = HeadsConfig.model_validate(meta["heads"])
        intents, tags = meta["intents"], meta["tags"]
        _check_labels(intents, tags)
    except (KeyError, ValueError) as error:
        got = _first(error) if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(f"{folder / 'config.json'}: expected intents, tags and heads, got {got}; copy the folder "
                            f"again") from error  # fmt: skip
    transitions = _read_transitions(folder / TRANSITIONS, len(tags)) if config.crf else None
    return Heads(intents, tags, config, {}, transitions)


def _read_transitions(path: Path, num_tags: int) -> Transitions:
    arrays, shapes = read_arrays(path), [(num_tags,), (num_tags, num_tags), (num_tags,)]
    got = [arrays[name].shape if name in arrays else None for name in Transitions._fields]
    if got != shapes:
        raise ArtifactError(f"{path}: expected {', '.join(Transitions._fields)} of the shapes {shapes}, got {got}; "
                            f"copy the folder again")  # fmt: skip
    return Transitions(*(arrays[name] for name in Transitions._fields))


def decoding_version(folder: Path) -> int:
    """Return by which rule a model's golden entities were decoded (`golden.DECODING_VERSION`); 1 if none is recorded.

    Raises:
        ArtifactError: not a weebill model, or no number there.
    """
    version = _read_meta(folder).get("decoding_version", 1)
    if type(version) is not int:
        raise ArtifactError(f"{folder / 'weebill.json'}: expected a number under 'decoding_version', got {version!r}; "
                            f"copy the folder again")  # fmt: skip
    return version


def _check_labels(intents: Any, tags: Any) -> None:
    """Refuse labels that the decoder could not use.

    Raises:
        ValueError: no list of distinct names, too many, or tags that are not O and pairs of B-x and I-x.
    """
    for name, labels in (("intents", intents), ("tags", tags)):
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{name} that are no list of names")
        if len(set(labels)) < len(labels) or len(labels) > MAX_LABELS:
            raise ValueError(f"{len(labels)} {name}, of which {len(set(labels))} are distinct and at most {MAX_LABELS} "
                             f"are read")  # fmt: skip
    kinds = {prefix: {tag[2:] for tag in tags if tag.startswith(prefix)} for prefix in ("B-", "I-")}
    if "O" not in tags or kinds["B-"] != kinds["I-"] or len(tags) != 1 + 2 * len(kinds["B-"]):
        raise ValueError("tags that are not O, and for each entity one that begins and one that goes on")


def _first(error: ValidationError) -> str:
    """Return in a few words what pydantic found first."""
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc'])) or 'the section'} = {str(found['input'])[:60]}: {found['msg']}"
