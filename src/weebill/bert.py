"""A BERT of anybody's, from a folder or the Hugging Face Hub, as a StoredModel. Runs no model and unpickles nothing.

What is read: a BertModel, alone or under a task head, or a sentence-transformers model made of Transformer + Pooling
(cls or mean), then perhaps Dense and Normalize. What would not give the same embeddings is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weebill.artifact import StoredModel, find_model, is_model_folder, read_model
from weebill.config import EncoderConfig
from weebill.encodings import ModelTokenizer
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.graph_weights import Arrays
from weebill.hf_tokenizer import load_tokenizer
from weebill.model_files import check_folder, inside, read_json
from weebill.weights import check_weights, read_arrays

WORDS, POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
_SHAPE = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "ffn_dim": "intermediate_size",
}
_FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_CHOSEN = {"dropout", "pooling", "max_seq_len", "embedding_dim", "projection"}  # what a run may change
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_HUB_FILES = [
    "*.json",
    "vocab.txt",
    "model.safetensors",
    "*_Transformer/model.safetensors",
    "*_Dense/model.safetensors",
]


def read_start(path_or_name: str, wanted: Mapping[str, Any]) -> StoredModel:
    """Return the model a run starts from, changed as the recipe asks.

    Args:
        path_or_name: weebill model folder, BERT folder, or name on the Hub.
        wanted: keys of the recipe's encoder section. Dropout, pooling, a smaller max_seq_len and another projection
            (its weights are left out, to start at random) can be had; other keys must agree with the model.

    Raises:
        ConfigError: a key asks for another shape.
        ArtifactError: see `read_model` and `read_bert`.
    """
    folder = find_model(path_or_name)
    is_ours = is_model_folder(folder)
    stored = read_model(folder) if is_ours else read_bert(path_or_name)
    old = stored.config.model_dump()
    differing = {key: value for key, value in wanted.items() if old[key] != value and key not in _CHOSEN}
    if wanted.get("max_seq_len", 0) > old["max_seq_len"]:
        differing["max_seq_len"] = wanted["max_seq_len"]
    if differing:
        raise ConfigError(f"start = {path_or_name!r} has another shape than the recipe's encoder section asks "
                          f"for: {differing}; remove the keys from the recipe")  # fmt: skip
    new = old | dict(wanted)
    if new["embedding_dim"] != old["embedding_dim"]:
        new["projection"] = wanted.get("projection", True)
    elif not new["projection"]:
        new["embedding_dim"] = new["hidden_dim"]
    try:
        config = EncoderConfig.model_validate(new)
    except ValidationError as error:
        raise ConfigError(f"start = {path_or_name!r}: {error.errors()[0]['msg']}; correct the recipe's encoder "
                          f"section") from error  # fmt: skip
    arrays = stored.arrays | {POSITIONS: stored.arrays[POSITIONS][: config.max_seq_len]}
    if (config.projection, config.embedding_dim) != (old["projection"], old["embedding_dim"]):
        arrays = {name: array for name, array in arrays.items() if not name.startswith("linear.")}
    return StoredModel(config, stored.tokenizer, arrays)


def read_bert(path_or_name: Path | str) -> StoredModel:
    """Read a BERT checkpoint with its tokenizer; a sentence-transformers model keeps its pooling and projection.

    Token type 0 is added to the positions, as every token is of that type. A plain BERT pools by mean, as in
    sentence-transformers. A Normalize module is left out: `encode(normalize=True)` does that.

    Args:
        path_or_name: folder, or a name such as "sentence-transformers/all-MiniLM-L6-v2", which is downloaded.

    Raises:
        ArtifactError: nothing there, another architecture, no tokenizer, no safetensors, weights that do not fit.
        MissingExtraError: `huggingface_hub` or `tokenizers` is needed and not installed.
    """
    folder = _find(str(path_or_name))
    check_folder(folder)
    modules = _modules(folder)
    bert = modules["Transformer"]
    options = read_json(bert / "config.json", dict)
    _refuse_other_architectures(options, bert / "config.json")
    arrays = _read_weights(bert)
    if "Dense" in modules:
        arrays |= _read_dense(modules["Dense"])
    tokenizer = load_tokenizer(bert)
    _refuse_other_texts(folder, bert, tokenizer)
    pooling = _read_pooling(modules["Pooling"]) if "Pooling" in modules else "mean"
    config = _config(options, pooling, arrays, bert)
    for name, rows in ((WORDS, tokenizer.vocab_size), (POSITIONS, config.max_seq_len)):
        if name in arrays:
            arrays[name] = arrays[name][:rows]  # no token has an id beyond its vocabulary, or stands later
    check_weights(bert, arrays, config, tokenizer)
    return StoredModel(config, tokenizer, arrays)


def _find(path_or_name: str) -> Path:
    """Return a folder as it is; a name on the Hub is downloaded, or found where it was downloaded before."""
    path = Path(path_or_name)
    if path.is_dir():
        return path
    expected = f"{path_or_name}: expected a model folder, or the name of a BERT on the Hugging Face Hub"
    if path.exists() or not _HUB_NAME.fullmatch(path_or_name):
        raise ArtifactError(f"{expected}, got {'a file' if path.exists() else 'nothing there'}; check the path")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        purpose = f"{path_or_name}: there is no such folder; downloading a model of that name"
        raise MissingExtraError("huggingface_hub", "bert", purpose) from error
    try:
        return Path(snapshot_download(path_or_name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the client and the HTTP library below it have error trees of their own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ArtifactError(f"{expected}, got no such folder here, and from the Hub: {reason}; correct the path, train "
                            f"that model first, or copy the checkpoint here by other means") from error  # fmt: skip


def _modules(folder: Path) -> dict[str, Path]:
    """Return the folder of each module of a sentence-transformers model; a plain BERT is a Transformer alone."""
    path = folder / "modules.json"
    if not path.is_file():
        if not (folder / "config.json").is_file():
            raise ArtifactError(f"{folder}: expected a weebill model (weebill.json) or a BERT checkpoint "
                                f"(config.json), got a folder with neither; check the path")  # fmt: skip
        return {"Transformer": folder}
    try:
        listed = [(str(m["type"]).split(".")[-1], inside(folder, m["path"])) for m in read_json(path, list)]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: expected modules with type and path, got {error!r}; copy it again") from error
    names = [name for name, _ in listed]
    optional = [name for name in ("Dense", "Normalize") if name in names]
    if names != ["Transformer", "Pooling", *optional]:
        raise ArtifactError(f"{path}: expected Transformer, Pooling, then perhaps Dense and Normalize, got "
                            f"{', '.join(names)}; to start from the Transformer alone, name its folder in a copy "
                            f"without modules.json")  # fmt: skip
    return dict(listed)


def _refuse_other_architectures(options: Mapping[str, Any], path: Path) -> None:
    for key, expected in _FIXED.items():
        if options.get(key, expected) != expected:
            raise ArtifactError(f"{path}: expected a BERT with {key} = {expected!r}, got {options[key]!r}; choose "
                                f"another checkpoint")  # fmt: skip
    classes = options.get("architectures") or ["BertModel"]
    if not str(classes[0]).startswith("Bert"):
        raise ArtifactError(f"{path}: expected BertModel or a Bert… with a head on it, got the architecture "
                            f"{classes[0]}; choose another checkpoint")  # fmt: skip


def _refuse_other_texts(folder: Path, bert: Path, tokenizer: ModelTokenizer) -> None:
    """Refuse what makes a sentence-transformers model read something else than the text as its tokenizer has it."""
    if not tokenizer.frame[0]:
        raise ArtifactError(f"{bert}: expected a tokenizer that puts [CLS] before a text, got one that does not; use "
                            f"the checkpoint's own")  # fmt: skip
    lowers = _optional_json(bert / "sentence_bert_config.json").get("do_lower_case")
    if lowers and tokenizer.encode("A").token_ids != tokenizer.encode("a").token_ids:
        raise ArtifactError(f"{bert / 'sentence_bert_config.json'}: expected a tokenizer that does all of the work, "
                            f"got do_lower_case beside one that keeps capitals; give the tokenizer that "
                            f"step")  # fmt: skip
    prompt = _optional_json(folder / "config_sentence_transformers.json").get("default_prompt_name")
    if prompt:
        raise ArtifactError(f"{folder / 'config_sentence_transformers.json'}: expected a model that reads texts as "
                            f"they are, got one that puts its prompt {prompt!r} before each; to start without, set "
                            f"default_prompt_name to null there")  # fmt: skip


def _config(options: Mapping[str, Any], pooling: str, arrays: Arrays, folder: Path) -> EncoderConfig:
    path = folder / "config.json"
    try:
        shape = {key: options[theirs] for key, theirs in _SHAPE.items()}
        limit = _optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
        limit = limit or _optional_json(folder / "tokenizer_config.json").get("model_max_length")
        positions = options["max_position_embeddings"]
        return EncoderConfig(
            **shape,
            max_seq_len=min(positions, limit or positions),
            dropout=options.get("hidden_dropout_prob", 0.1),
            layer_norm_eps=options.get("layer_norm_eps", 1e-12),
            pooling=pooling,
            embedding_dim=len(arrays.get("linear.bias", range(shape["hidden_dim"]))),
            projection="linear.bias" in arrays,
            positions="learned",
        )
    except KeyError as error:
        raise ArtifactError(
            f"{path}: expected a BERT's configuration, got one without {error}; copy it again"
        ) from error
    except TypeError as error:
        raise ArtifactError(f"{path}: expected a BERT's configuration, got {error}; copy it again") from error
    except ValidationError as error:
        found = error.errors()[0]
        key = ".".join(map(str, found["loc"]))
        raise ArtifactError(f"{path}: expected a shape weebill's encoder can have, got {key} = {found['input']!r}: "
                            f"{found['msg']}; choose another checkpoint") from error  # fmt: skip


def _read_weights(folder: Path) -> Arrays:
    """Return the encoder's weights by the names they have in our model folder."""
    read = read_arrays(_safetensors(folder))
    named = {_bert_name(name): array for name, array in read.items()}
    arrays = {name: array for name, array in named.items() if name.startswith(("embeddings.", "encoder."))}
    types_ZD = arrays.pop(TOKEN_TYPES, None)
    if types_ZD is not None and POSITIONS in arrays:
        arrays[POSITIONS] = arrays[POSITIONS] + types_ZD[0]
    return arrays


def _bert_name(name: str) -> str:
    """Return a weight's name in BertModel; under a head it has a prefix, converted from TensorFlow another ending.

    Example:
        >>> _bert_name("bert.embeddings.LayerNorm.gamma")
        'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_dense(folder: Path) -> Arrays:
    path = folder / "config.json"
    options = read_json(path, dict)
    activation = str(options.get("activation_function", "torch.nn.modules.activation.Tanh")).split(".")[-1]
    if activation != "Identity" or options.get("use_residual"):
        got = "a residual connection" if activation == "Identity" else f"the activation {activation}"
        raise ArtifactError(f"{path}: expected a linear projection, got {got}; choose another checkpoint")
    arrays = read_arrays(_safetensors(folder))
    if "linear.weight" not in arrays:
        raise ArtifactError(f"{folder}: expected the weight 'linear.weight', got none of that name; copy "
                            f"the folder again")  # fmt: skip
    bias = arrays.get("linear.bias", 0 * arrays["linear.weight"][:, 0])
    return {"linear.weight": arrays["linear.weight"], "linear.bias": bias}


def _read_pooling(folder: Path) -> str:
    options = read_json(folder / "config.json", dict)
    modes = options.get("pooling_mode") or [mode for key, mode in _POOLING.items() if options.get(key)]
    modes = [modes] if isinstance(modes, str) else modes
    if modes not in (["cls"], ["mean"]):
        raise ArtifactError(f"{folder / 'config.json'}: expected pooling by cls or by mean, got {' and '.join(modes)}; "
                            f"choose another checkpoint")  # fmt: skip
    return str(modes[0])


def _safetensors(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    pickled = [name for name in ("pytorch_model.bin", "tf_model.h5", "model.ckpt") if (folder / name).is_file()]
    if not pickled:
        raise ArtifactError(f"{path}: expected the weights, got nothing there; copy the folder again")
    raise ArtifactError(f"{path}: expected the weights as safetensors, got {pickled[0]}, which can run code when it is "
                        f"opened; convert a checkpoint you trust: transformers.AutoModel.from_pretrained("
                        f"{str(folder)!r}).save_pretrained(FOLDER), and copy its tokenizer there")  # fmt: skip


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}
