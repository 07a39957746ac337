"""A start made smaller before training: fewer layers, narrower feed-forward parts, fewer tokens. Trains nothing.

Each step leaves out what the embeddings of some texts miss least. What is left reads badly by itself, and learns from a
teacher much sooner than random weights do.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from weebill.artifact import count_parameters
from weebill.config import ShrinkConfig
from weebill.errors import ConfigError
from weebill.hf_tokenizer import HuggingFaceTokenizer
from weebill.sent_transformer import EncoderLayer, SentenceTransformer
from weebill.tokenizer import Tokenizer

SAMPLE_TEXTS = 1_000  # whose embeddings say what can be left out
BLOCK_TEXTS = 10_000  # tokenized at once


def shrink(encoder: SentenceTransformer, wanted: ShrinkConfig, texts: Iterable[str], seed: int = 0) -> None:
    """Make an encoder smaller, in place: layers first, then units of the feed-forward parts, then tokens.

    Args:
        encoder: of trained weights.
        wanted: the new sizes.
        texts: what it will read; tokens that they have most are kept, and a sample of them chooses the rest.
        seed: decides the sample.

    Raises:
        ConfigError: a size is larger than it is, there are no texts, or tokens of this kind cannot be left out.

    Source:
        Layers: as in DistilBERT (Sanh et al. 2019), but chosen by what they change. Units: by the mean size of what
        they add (Fan et al. 2021). Tokens: vocabulary trimming (Abdaoui et al. 2020).
    """
    config = encoder.config
    for name, size in (("num_layers", config.num_layers), ("ffn_dim", config.ffn_dim),
                       ("vocab_size", encoder.tokenizer.vocab_size)):  # fmt: skip
        asked = getattr(wanted, name)
        if asked is not None and asked > size:
            raise ConfigError(f"shrink.{name}: expected at most {size}, which the start has, got {asked}; correct it")
    before = count_parameters(config, encoder.tokenizer.vocab_size, None)
    counts, sample = _read(encoder, texts, seed)
    whole_ND = encoder.encode(sample, normalize=True, show_progress=False)
    if wanted.num_layers is not None:
        _drop_layers(encoder, wanted.num_layers, sample, whole_ND)
    if wanted.ffn_dim is not None:
        _drop_units(encoder, wanted.ffn_dim, sample)
    if wanted.vocab_size is not None:
        _drop_tokens(encoder, wanted.vocab_size, counts)
    after = count_parameters(encoder.config, encoder.tokenizer.vocab_size, None)
    kept = _likeness(encoder, sample, whole_ND)
    Console(stderr=True).print(f"start shrunk from {before:,} to {after:,} parameters; before training, its embeddings "
                               f"have a cosine of {kept:.2f} to what they were", soft_wrap=True)  # fmt: skip


def _read(encoder: SentenceTransformer, texts: Iterable[str], seed: int) -> tuple[Counter[int], list[str]]:
    """Return how often each token occurs in the texts, and a sample of them, drawn in one pass."""
    rng = np.random.default_rng(seed)
    counts: Counter[int] = Counter()
    sample: list[str] = []
    seen = 0
    for block in _blocks(texts):
        for encoding in encoder.tokenizer.encode_batch(block).encodings:
            counts.update(encoding.token_ids)
        for text in block:
            seen += 1
            place = seen - 1 if seen <= SAMPLE_TEXTS else int(rng.integers(seen))
            if place < SAMPLE_TEXTS:
                sample[place : place + 1] = [text]
    if not sample:
        raise ConfigError("shrink: expected texts to choose by, got none; name training data")
    return counts, sample


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while block := list(islice(rest, BLOCK_TEXTS)):
        yield block


def _likeness(encoder: SentenceTransformer, texts: Sequence[str], whole_ND: np.ndarray) -> float:
    """Return the mean cosine of the texts' embeddings to those before."""
    now_ND = encoder.encode(texts, normalize=True, show_progress=False)
    return float((now_ND * whole_ND).sum(axis=1).mean())


def _drop_layers(encoder: SentenceTransformer, num_layers: int, texts: Sequence[str], whole_ND: np.ndarray) -> None:
    """Leave out one layer after another, each time the one that the embeddings miss least."""
    for _ in track(range(len(encoder.layers) - num_layers), "leave out layers", console=Console(stderr=True),
                   transient=True):  # fmt: skip
        layers = [*encoder.layers]
        tried = []
        for i in range(len(layers)):
            encoder.layers = nn.ModuleList(layers[:i] + layers[i + 1 :])
            tried.append((_likeness(encoder, texts, whole_ND), encoder.layers))
        _, encoder.layers = max(tried, key=lambda one: one[0])
    encoder.config = encoder.config.model_copy(update={"num_layers": num_layers})


@torch.no_grad()
def _drop_units(encoder: SentenceTransformer, ffn_dim: int, texts: Sequence[str]) -> None:
    """Keep the units of feed-forward parts that add most: mean activation times the size of what it is weighed with."""
    sums = [torch.zeros(encoder.config.ffn_dim) for _ in encoder.layers]

    def add_to(sum_F: Tensor, module: nn.Module, inputs: tuple[Tensor]) -> None:
        sum_F += inputs[0].detach().float().abs().flatten(end_dim=-2).sum(dim=0)

    layers = [layer for layer in encoder.layers if isinstance(layer, EncoderLayer)]
    hooks = [
        layer.ffn_out.register_forward_pre_hook(lambda module, inputs, sum_F=sum_F: add_to(sum_F, module, inputs))
        for layer, sum_F in zip(layers, sums, strict=True)
    ]
    encoder.encode(texts, show_progress=False)
    for hook, layer, sum_F in zip(hooks, layers, sums, strict=True):
        hook.remove()
        added_F = sum_F * layer.ffn_out.weight.norm(dim=0)
        kept = added_F.topk(ffn_dim).indices.sort().values
        layer.ffn_in.weight = nn.Parameter(layer.ffn_in.weight[kept])
        layer.ffn_in.bias = nn.Parameter(layer.ffn_in.bias[kept])
        layer.ffn_out.weight = nn.Parameter(layer.ffn_out.weight[:, kept].contiguous())
        layer.ffn_in.out_features = layer.ffn_out.in_features = ffn_dim
    encoder.config = encoder.config.model_copy(update={"ffn_dim": ffn_dim})


def _drop_tokens(encoder: SentenceTransformer, vocab_size: int, counts: Counter[int]) -> None:
    """Keep the tokens the texts have most; words that lose theirs are read in smaller pieces."""
    tokenizer: Tokenizer | HuggingFaceTokenizer
    kept: Sequence[int]
    if isinstance(encoder.tokenizer, Tokenizer):  # its merges build on each other: the first ones
        tokenizer, kept = encoder.tokenizer.cut(vocab_size), range(vocab_size)
    elif isinstance(encoder.tokenizer, HuggingFaceTokenizer):
        needed = encoder.tokenizer.needed_tokens()
        if len(needed) > vocab_size:
            raise ConfigError(f"shrink.vocab_size: expected at least {len(needed)}, for special tokens and characters, "
                              f"got {vocab_size}; correct it")  # fmt: skip
        others = [token_id for token_id, _ in counts.most_common() if token_id not in needed]
        kept = sorted([*needed, *others[: vocab_size - len(needed)]])
        tokenizer = encoder.tokenizer.keep(kept)
    rows_VD = encoder.word_embeddings.weight.detach()[torch.tensor(kept)]
    encoder.word_embeddings = nn.Embedding(
        len(rows_VD), rows_VD.shape[1], padding_idx=tokenizer.pad_id, _weight=rows_VD
    )
    encoder.tokenizer = tokenizer
