"""The encoder a run starts from: its shape, tokenizer and first word embeddings. Trains nothing."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from weebill.artifact import Heads, find_model, is_model_folder, read_model
from weebill.bert import read_start
from weebill.config import EncoderConfig, HeadsConfig, Recipe, ShrinkConfig
from weebill.cooccurrence import neighbour_vectors
from weebill.errors import ConfigError
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.shrinking import shrink
from weebill.teacher import Vectors, fit_width
from weebill.tokenizer import Tokenizer


def start_encoder(
    recipe: Recipe,
    tokenizer: Tokenizer | None,
    texts: Iterable[str] = (),
    teacher: Callable[[Sequence[str]], Vectors] | None = None,
) -> SentenceTransformer:
    """Return the encoder a run starts from; one given by `start` keeps its shape and brings its tokenizer.

    Args:
        recipe: what to start from.
        tokenizer: for an encoder of random weights; default: as the recipe says.
        texts: of the training data; their words are counted for `word_embeddings = "neighbours"` and `shrink`.
        teacher: texts -> embeddings, for `word_embeddings = "teacher"`.

    Raises:
        ConfigError: the tokenizer frames no text, or the word embeddings cannot start as the recipe says.
    """
    if recipe.start is not None:
        wanted = recipe.encoder.model_dump(exclude_unset=True)
        encoder = SentenceTransformer.from_stored(read_start(recipe.start, wanted)).train()
        if recipe.shrink != ShrinkConfig():
            shrink(encoder, recipe.shrink, texts, recipe.seed)
    else:
        if tokenizer is None:
            tokenizer = (
                Tokenizer.packaged() if recipe.tokenizer == "packaged" else Tokenizer.load(Path(recipe.tokenizer))
            )
        if not tokenizer.frame[0]:
            raise ConfigError(f"tokenizer = {recipe.tokenizer!r}: expected one with [CLS] and [SEP], as the "
                              f"encoder needs, got one without; train one with `weebill tokenizer train`")  # fmt: skip
        encoder = SentenceTransformer(EncoderConfig.model_validate(recipe.encoder.model_dump()), tokenizer)
    if recipe.word_embeddings == "neighbours":
        start_by_neighbours(encoder, texts)
    elif recipe.word_embeddings == "teacher":
        start_by_teacher(encoder, teacher)
    return encoder


_BY_LABEL = ("intent_head.linear.", "tag_head.mlp.3.", "tag_head.crf.")  # weights with a row for every label


def start_heads(recipe: Recipe, model: MultiTaskModel) -> Heads | None:
    """Give the model's heads what a weebill `start` has for them, and return the start's heads, if it has any.

    A tag head of another width begins at random; else a head begins as it is there, but for labels that the start does
    not know, whose rows begin at random.
    """
    if recipe.start is None or not is_model_folder(find_model(recipe.start)):
        return None
    start = read_model(find_model(recipe.start)).heads
    if start is None:
        return None
    arrays, weights = start.all_arrays(), model.state_dict()
    for head, ours, theirs in (("intent_head", model.intents, start.intents), ("tag_head", model.tags, start.tags)):
        both = [(ours.index(label), theirs.index(label)) for label in theirs if label in ours]
        if not both or (head == "tag_head" and tag_head_widths(model.config) != tag_head_widths(start.config)):
            continue
        here, there = (torch.tensor(rows) for rows in zip(*both, strict=True))
        for name in (name for name in weights if name.startswith(f"{head}.") and name in arrays):
            tensor, array = weights[name], torch.from_numpy(arrays[name])
            if name.startswith("tag_head.crf.transitions"):
                tensor[here[:, None], here] = array[there[:, None], there]
            elif name.startswith(_BY_LABEL):
                tensor[here] = array[there]
            else:
                tensor.copy_(array)
    return start


def tag_head_widths(config: HeadsConfig) -> tuple[int, int]:
    """Return what decides the shape of a tag head beside its labels."""
    return config.lstm_dim, config.mlp_dim


@torch.no_grad()
def start_by_neighbours(encoder: SentenceTransformer, texts: Iterable[str]) -> None:
    """Set each token's embedding by the tokens it stands near in `texts` (`cooccurrence.neighbour_vectors`).

    Scaled as random embeddings are; tokens that no text has stay random.

    Raises:
        ConfigError: no text with two tokens.
    """
    tokenizer, weight_VD = encoder.tokenizer, encoder.word_embeddings.weight
    assert isinstance(tokenizer, Tokenizer)  # only a start brings another
    console = Console(stderr=True)
    progress = track(texts, description="count neighbours of words", console=console, transient=True,
                     disable=not console.is_terminal)  # fmt: skip
    token_ids: Iterable[list[int]] = map(tokenizer.encode_ordinary, progress)
    vectors_VD = neighbour_vectors(token_ids, *weight_VD.shape)
    if not vectors_VD.any():
        raise ConfigError("word_embeddings = neighbours: expected training texts of several tokens, got none; name "
                          "more under data, or set it to random")  # fmt: skip
    seen = torch.from_numpy(np.flatnonzero(vectors_VD.any(axis=1)))
    rows = torch.from_numpy(vectors_VD)[seen]
    weight_VD[seen] = rows * (weight_VD.std() / rows.std())


@torch.no_grad()
def start_by_teacher(encoder: SentenceTransformer, teacher: Callable[[Sequence[str]], Vectors] | None) -> None:
    """Set each token's embedding to the teacher's embedding of its text, in the encoder's width; specials stay random.

    Centred, brought to the hidden width by principal components, and scaled as random embeddings are. Tokens that are
    no text of their own (parts of characters, spaces) stay random too.

    Source: Tulkens and van Dongen 2024 (model2vec), whose static model this is; here it is where learning starts.

    Raises:
        ConfigError: no teacher, a teacher narrower than the hidden width, or a start that brings its embeddings.
    """
    tokenizer, weight_VD = encoder.tokenizer, encoder.word_embeddings.weight
    if teacher is None or not isinstance(tokenizer, Tokenizer):
        raise ConfigError("word_embeddings = teacher: expected a teacher, and a tokenizer of weebill's (no BERT to "
                          "start from); name a teacher, or set it to random")  # fmt: skip
    special = set(tokenizer.special_tokens.values())
    texts = {i: tokenizer.decode([i]).strip() for i in range(tokenizer.vocab_size) if i not in special}
    texts = {i: text for i, text in texts.items() if text and "\ufffd" not in text}
    distinct = list(dict.fromkeys(texts.values()))
    wide_ND = teacher(distinct).astype(np.float32)
    narrow_ND = fit_width((wide_ND - wide_ND.mean(axis=0)).astype(np.float16), weight_VD.shape[1], "pca")
    narrow_ND = narrow_ND.astype(np.float32)
    place = {text: n for n, text in enumerate(distinct)}
    rows = torch.from_numpy(narrow_ND[[place[text] for text in texts.values()]])
    weight_VD[list(texts)] = rows * (weight_VD.std() / rows.std())
