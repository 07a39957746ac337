"""A start made smaller before training: fewer layers, narrower feed-forward parts, fewer tokens. Trains nothing.

Each step leaves out what the embeddings of some texts miss least. What is left reads badly by itself, and learns from a
teacher much sooner than random weights do.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from weebill.config import ShrinkConfig
from weebill.encodings import ModelTokenizer
from weebill.errors import ConfigError
from weebill.hf_tokenizer import HuggingFaceTokenizer
from weebill.sent_transformer import EncoderLayer, SentenceTransformer
from weebill.tokenizer import Tokenizer
from weebill.weights import count_parameters

SAMPLE_TEXTS = 1_000  # whose embeddings say what can be left out
BLOCK_TEXTS = 10_000  # tokenized at once


def shrink(encoder: SentenceTransformer, wanted: ShrinkConfig, texts: Iterable[str], seed: int = 0) -> None:
    """Make an encoder smaller, in place: layers first, then units of the feed-forward parts, then tokens.

    Args:
        encoder: of trained weights.
        wanted: the new sizes.
        texts: what it will read; a sample of them says what can go, all of them which of a WordPiece's tokens stay.
        seed: decides the sample.

    Raises:
        ConfigError: a size is larger than it is, there are no texts, or tokens of this kind cannot be left out.

    Source:
        Layers: as in DistilBERT (Sanh et al. 2019), but chosen by what they change. Units: by the mean size of what
        they add (Fan et al. 2021). Tokens: vocabulary trimming (Abdaoui et al. 2020).
    """
    config, tokenizer = encoder.config, encoder.tokenizer
    for name, size in (("num_layers", config.num_layers), ("ffn_dim", config.ffn_dim),
                       ("vocab_size", tokenizer.vocab_size)):  # fmt: skip
        asked = getattr(wanted, name)
        if asked is not None and asked > size:
            raise ConfigError(f"shrink.{name}: expected at most {size}, which the start has, got {asked}; correct it")
    before = count_parameters(config, tokenizer.vocab_size)
    sample, counts = _read(encoder, texts, seed)
    smaller = _fewer_tokens(tokenizer, wanted.vocab_size, counts)  # refuses before the long part
    whole_ND = encoder.encode(sample, normalize=True, show_progress=False)
    if wanted.num_layers is not None:
        _drop_layers(encoder, wanted.num_layers, sample, whole_ND)
    if wanted.ffn_dim is not None:
        _drop_units(encoder, wanted.ffn_dim, sample)
    if smaller is not None:
        encoder.tokenizer, kept = smaller
        rows_VD = encoder.word_embeddings.weight.detach()[torch.tensor(kept)]
        encoder.word_embeddings = nn.Embedding(
            len(rows_VD), rows_VD.shape[1], padding_idx=encoder.tokenizer.pad_id, _weight=rows_VD
        )
    after = count_parameters(encoder.config, encoder.tokenizer.vocab_size)
    cosine = _likeness(encoder, sample, whole_ND)
    tokens = f"{encoder.tokenizer.vocab_size:,} tokens"
    Console(stderr=True).print(f"start shrunk from {before:,} to {after:,} parameters, {tokens}; before training, its "
                               f"embeddings have a cosine of {cosine:.2f} to what they were",
                               soft_wrap=True, highlight=False)  # fmt: skip


def _read(encoder: SentenceTransformer, texts: Iterable[str], seed: int) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return a sample of the texts that the encoder reads whole, and how often each token occurs in all of them."""
    rng = np.random.default_rng(seed)
    counts_V = np.zeros(encoder.tokenizer.vocab_size, np.int64)
    sample: list[str] = []
    fitting = 0
    for block in _blocks(texts):
        batch = encoder.tokenizer.encode_batch(block)
        counts_V += np.bincount(np.frombuffer(b"".join(batch.packed), np.int32), minlength=len(counts_V))
        for text, length in zip(block, batch.lengths_B.tolist(), strict=True):
            if length > encoder.config.max_seq_len:
                continue
            fitting += 1  # each has the same chance to be in the sample
            place = fitting - 1 if fitting <= SAMPLE_TEXTS else int(rng.integers(fitting))
            if place < SAMPLE_TEXTS:
                sample[place : place + 1] = [text]
    if not sample:
        raise ConfigError("shrink: expected training texts to choose by that the start reads whole, got none; name "
                          "data with such texts")  # fmt: skip
    return sample, counts_V


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while block := list(islice(rest, BLOCK_TEXTS)):
        yield block


def _fewer_tokens(
    tokenizer: ModelTokenizer, vocab_size: int | None, counts_V: npt.NDArray[np.int64]
) -> tuple[ModelTokenizer, Sequence[int]] | None:
    """Return a tokenizer of fewer tokens, and which of the old ones these are; None where all stay.

    Of a WordPiece those stay that the texts have most; of byte-level BPE the first merges, as later ones build on them.
    """
    if vocab_size is None or vocab_size == tokenizer.vocab_size:
        return None
    if isinstance(tokenizer, HuggingFaceTokenizer):
        kept = tokenizer.tokens_to_keep(vocab_size, counts_V.tolist())
        return tokenizer.keep(kept), kept
    assert isinstance(tokenizer, Tokenizer)  # there are these two kinds
    try:
        return tokenizer.cut(vocab_size), range(vocab_size)
    except ConfigError as error:
        raise ConfigError(f"shrink.vocab_size: expected tokens that can be left out, got a tokenizer that says: "
                          f"{error}; change it, or leave it out") from error  # fmt: skip


def _likeness(encoder: SentenceTransformer, texts: Sequence[str], whole_ND: npt.NDArray[np.float32]) -> float:
    """Return the mean cosine of the texts' embeddings to those before."""
    now_ND = encoder.encode(texts, normalize=True, show_progress=False)
    return float((now_ND * whole_ND).sum(axis=1).mean())


def _drop_layers(
    encoder: SentenceTransformer, num_layers: int, texts: Sequence[str], whole_ND: npt.NDArray[np.float32]
) -> None:
    """Leave out one layer after another, each time the one that the embeddings miss least."""
    console = Console(stderr=True)
    for _ in track(range(len(encoder.layers) - num_layers), "leave out layers", console=console, transient=True,
                   disable=not console.is_terminal):  # fmt: skip
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
    encoder.encode(texts, batch_size=1, show_progress=False)  # no padding, whose units would count
    for hook, layer, sum_F in zip(hooks, layers, sums, strict=True):
        hook.remove()
        added_F = sum_F * layer.ffn_out.weight.norm(dim=0)
        kept = added_F.topk(ffn_dim).indices.sort().values
        layer.ffn_in.weight = nn.Parameter(layer.ffn_in.weight[kept])
        layer.ffn_in.bias = nn.Parameter(layer.ffn_in.bias[kept])
        layer.ffn_out.weight = nn.Parameter(layer.ffn_out.weight[:, kept].contiguous())
        layer.ffn_in.out_features = layer.ffn_out.in_features = ffn_dim
    encoder.config = encoder.config.model_copy(update={"ffn_dim": ffn_dim})
