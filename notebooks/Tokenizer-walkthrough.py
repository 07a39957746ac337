# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How a tokenizer learns to cut text
#
# A model reads numbers. Something has to turn text into numbers and back, and every choice it makes is one the model
# has to live with. This notebook trains weebill's tokenizer, a **byte-level BPE** (byte pair encoding, the kind that
# GPT-2 and its successors use), and looks inside at every step: splitting with a pattern, counting pairs, merging,
# encoding, decoding, offsets, and what the size of the vocabulary buys and costs.
#
# It wants plain text, and Wikipedia is the usual choice: `weebill data fetch wikipedia --output data`, in the
# repository's folder, makes `data/wiki/simplewiki.txt.gz`, and with `WEEBILL_DATA=data` (or the path written below) the
# notebook reads the first `wiki/*.txt.gz` that it finds there. Without one it learns from two embedded samples: the
# utterances that weebill's grammar writes, and the English manual that comes with every Python, in
# `pydoc_data.topics`. That manual differs between versions of Python, and with it some of the merges. What Wikipedia
# teaches can be seen without the file too: the tokenizer that ships with weebill was learned from it.

# %%
import json
import os
import pydoc_data.topics
import tempfile
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets; nothing here needs them
import matplotlib.pyplot as plt
import numpy as np
from rich import print as show
from rich.table import Table

from weebill import Tokenizer, templates
from weebill.bpe import (
    BYTE_CHARACTERS,
    SPLIT_PATTERNS,
    SYMBOL_BYTES,
    apply_merges,
    count_pairs,
    learn_merges,
    merge_ranks,
    pretokenize,
    symbols_of,
)
from weebill.corpus import stream_texts
from weebill.offsets import utf16_positions
from weebill.tokenizer_stats import size_curve, tokenizer_stats

DATA = os.environ.get("WEEBILL_DATA")  # or a path: a folder that holds wiki/*.txt.gz
PLACES = [Path(DATA), Path("..", DATA)] if DATA else []  # a relative path is from here, or from the repository
SMALL = os.environ.get("WEEBILL_NOTEBOOK_SIZE") == "small"  # how the tests run it: the same cells on very little

# %% [markdown]
# ## 1. Why bytes
#
# Whole **words** as tokens make an endless vocabulary, and the first unknown name has no number at all.
# **Characters** are few in English, but Unicode has over a hundred thousand, most of which a model would hardly ever
# meet. **Bytes** are 256, and every text of every language is made of them, since UTF-8 writes any character as one
# to four. So the alphabet is bytes: nothing is ever unknown, and no special case is needed.

# %%
for text in ("cafe", "café", "日本", "☕"):
    print(f"{text}  {len(text)} characters, {len(text.encode()):2} bytes: {list(text.encode())}")

# %% [markdown]
# The price is length: the two Japanese characters are six bytes. That is what merging is for. Frequent runs of bytes
# become tokens of their own, and what is rare stays in pieces.
#
# Bytes like the space or half of an é cannot be printed, so files of this kind of tokenizer write each byte as one
# visible character, in a correspondence that GPT-2 fixed. A space is written `Ġ`, which is why vocabularies are full
# of it:

# %%
for text in (" wake", "café", "\n"):
    print(f"{text!r:9} is written {''.join(BYTE_CHARACTERS[byte] for byte in text.encode())}")

# %% [markdown]
# ## 2. Splitting first: the pattern
#
# If merges could join anything, "dog.", "dog!" and "dog," would soon be three unrelated tokens. So the text is first
# cut into **pretokens** by a regular expression, and merges never cross a cut. This is GPT-2's pattern; read it as a
# list of alternatives, tried from left to right:
#
# | alternative | matches |
# |---|---|
# | `'s\|'t\|'re\|'ve\|'m\|'ll\|'d` | English contractions |
# | ` ?\p{L}+` | letters, with one space before them if there is one |
# | ` ?\p{N}+` | digits, likewise |
# | ` ?[^\s\p{L}\p{N}]+` | whatever is neither: punctuation, symbols, emoji |
# | `\s+(?!\S)`, `\s+` | white space; all but its last character if a word follows |
#
# Note that a space belongs to the word **after** it. " am" and "am" are two different pretokens, and joined together
# the pretokens always give the text back.

# %%
text = "IT'S 7:30 am,  wake me/us in 2026! ☕"
print("the text:", text)
for name in SPLIT_PATTERNS:
    pretokens = pretokenize(text, name)
    assert "".join(pretokens) == text
    print(f"{name}:    ", "|".join(pretokens))

# %% [markdown]
# GPT-4's pattern differs in the detail, and all of it shows here: digits have no space before them and come at most
# three at a time (" |202|6"), any one character that is no letter or digit may stand before a word ("/us"), and the
# case of contractions does not count ("'S"). weebill takes either, or a pattern of
# yours.
#
# ## 3. Counting pairs, and the merge loop
#
# Now the learning itself, on a text that is small enough to follow. Only the counts of pretokens matter; where they
# stand in the text does not. Each pretoken is a row of symbols, at first one per byte.

# %%
tiny_text = "the weebill is the smallest bird; the weebill still fills the hills with a bill so small"
words = Counter(pretokenize(tiny_text))
symbols = {word: symbols_of(word) for word in words}
print(words.most_common(5))

# %% [markdown]
# `count_pairs` says how often each pair of neighbours occurs, each pretoken counted as often as it occurs. These are
# the most frequent:

# %%
names = {symbol: BYTE_CHARACTERS[byte] for symbol, byte in enumerate(SYMBOL_BYTES)}
pairs = count_pairs((symbols[word], count) for word, count in words.items())
for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:6]:
    print(f"{names[pair[0]]} {names[pair[1]]}  {count}")

# %% [markdown]
# The loop: **take the most frequent pair, make it one symbol, replace it everywhere, count again.** That is all of
# BPE. Between pairs that are equally frequent any rule will do, as long as there is one; weebill's is that of Hugging
# Face's `tokenizers`, the smaller symbols first, so that both learn the same merges.

# %%
merges, history = {}, []
for number in range(12):
    pairs = count_pairs((symbols[word], count) for word, count in words.items())
    best = min(pairs, key=lambda pair: (-pairs[pair], pair))
    merges[best] = 256 + number
    names[256 + number] = names[best[0]] + names[best[1]]
    symbols = {word: apply_merges(symbols_of(word), merge_ranks(merges)) for word in words}
    length = sum(count * len(symbols[word]) for word, count in words.items())
    history.append(symbols)
    print(
        f"{number + 1:2}. {names[best[0]]} + {names[best[1]]} → {names[256 + number]:8} {pairs[best]} times; "
        f"the text is now {length} tokens"
    )

# %% [markdown]
# Look at what happened to three of the words, row by row from bytes at the top to the last merge at the bottom.
# Nothing in the loop knows of words or endings, and yet `ill` and ` the` come out, because they are what the text
# repeats.

# %%
rows = [{word: symbols_of(word) for word in words}, *history]
figure, panels = plt.subplots(1, 3, figsize=(11, 4.4), layout="constrained")
for axes, word in zip(panels, (" weebill", " smallest", " the"), strict=True):
    for number, row in enumerate(rows):
        at = 0
        for symbol in row[word]:
            name = names[symbol]
            colour = plt.cm.Pastel1(symbol % 8) if symbol >= 256 else "#f2f2f2"
            axes.add_patch(plt.Rectangle((at, -number), len(name) - 0.08, 0.85, facecolor=colour, edgecolor="#888888"))
            axes.text(at + len(name) / 2, 0.42 - number, name, ha="center", va="center", fontsize=8)
            at += len(name)
    axes.set(xlim=(-0.2, 9.2), ylim=(-len(rows) + 0.9, 1), title=f"{word!r}")
    axes.set_yticks([0.42 - number for number in range(len(rows))], ["bytes", *range(1, len(rows))], fontsize=8)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
panels[0].set_ylabel("after merge")
plt.show()

# %% [markdown]
# The loop above counts everything anew for each merge, which is slow on a long text. `learn_merges`, which weebill
# trains with, touches only the places that a merge changes. On this text both must say the same:

# %%
assert learn_merges(words, 256 + len(merges)) == merges
print("learn_merges gives the same", len(merges), "merges in the same order")

# %% [markdown]
# ## 4. Learning from a real text
#
# The same on a text worth the name. The vocabulary counts four special tokens ([PAD], [CLS], [SEP], [MASK]), the 256
# bytes, and then a token for each merge. A text that repeats itself can run out of pairs to merge before the
# vocabulary is full, as the grammar's utterances do.

# %%
utterances = [u.text for u in templates.generate(600 if SMALL else 7_000)[0]]
manual = [line for topic in pydoc_data.topics.topics.values() for line in topic.splitlines(keepends=True)]
sources = {"utterances": utterances, "Python's manual": manual[:1_000] if SMALL else manual}
articles = [path for place in PLACES for path in sorted(place.glob("wiki/*.txt.gz"))]
if articles:
    lines = stream_texts(articles[:1])
    sources["Wikipedia"] = [line for line, _ in zip(lines, range(1_000 if SMALL else 30_000), strict=False)]
elif DATA:
    print("WEEBILL_DATA has no wiki/*.txt.gz (weebill data fetch wikipedia); embedded samples only")
studied = list(sources)[-1]  # sections 7 and 8 look at it more closely

trained = {}
for name, texts in sources.items():
    trained[name] = Tokenizer.train(texts, 1_000 if SMALL else 4_096)
    print(f"{name}: {sum(len(t.encode()) for t in texts):,} bytes, {trained[name].vocab_size:,} tokens")
trained["Wikipedia, as shipped"] = Tokenizer.packaged()
print(f"Wikipedia, as shipped: {Tokenizer.packaged().vocab_size:,} tokens")

# %% [markdown]
# A tokenizer is a portrait of what it read. The first merges are much the same everywhere, since they are the
# commonest letter pairs of English (the manual adds its indentation and its ruled lines). The longest tokens, which
# are runs of text that were frequent enough to be worth a token each, tell the sources apart at a glance.

# %%
table = Table("learned from", "first merges", "longest tokens", show_lines=True)
for name, tokenizer in trained.items():
    first = [tokenizer.token_name(merged) for merged in list(tokenizer.merges.values())[:8]]
    spelled = [tokenizer.token_bytes(i).decode("utf-8", "replace") for i in range(260, tokenizer.vocab_size)]
    long_words = sorted({t.strip() for t in spelled if t.strip().isalpha()}, key=lambda t: (-len(t), t))
    table.add_row(name, " ".join(first), ", ".join(long_words[:5]))
show(table)

# %% [markdown]
# It shows in the cuts as well. One sentence, cut by each:

# %%
sentence = "wake me up at nine am, the museum's library opens at 9:15"
for name, tokenizer in trained.items():
    pieces = tokenizer.pieces(sentence)
    print(f"{len(pieces):2} tokens, {name}:\n   {'|'.join(pieces)}")

# %% [markdown]
# ## 5. Encoding and decoding
#
# **Encoding** cuts a text into pretokens and applies the merges to each, always the one learned earliest first.
# **Decoding** joins the tokens' bytes. `encode` puts [CLS] and [SEP] around the text, as the encoder expects;
# `pieces` and `encode_ordinary` leave them out. In the order of learning, a rare word falls into pieces like this:

# %%
tokenizer = trained["Wikipedia, as shipped"]
ranks = merge_ranks(tokenizer.merges)
word = " weebills"
current = [tokenizer.byte_ids[byte] for byte in word.encode()]
while True:
    print("|".join(tokenizer.token_name(i) for i in current))
    known = [pair for pair in pairwise(current) if pair in ranks]
    if not known:
        break
    pair = min(known, key=ranks.get)
    current = apply_merges(current, {pair: ranks[pair]})
assert current == tokenizer.encode_ordinary(word)

# %% [markdown]
# Whatever the text, decoding gives it back: languages it never saw, emoji, control characters. That is the promise of
# bytes, and the tests of weebill try it on random text. Text that looks like a special token is text, not a command:

# %%
for text in ("naïve café ☕", "おはよう", "\x00\t  two  spaces ", "typed by a user: [CLS]"):
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    print(f"{text!r}: {len(ids)} tokens, and back")

# %% [markdown]
# ## 6. Offsets: where a token came from
#
# A model that finds a date in tokens 5 to 6 must say where that is in the **text**. So each token carries its
# half-open span of characters. Three things to see in the table: the space before a word is not part of its span;
# special tokens have empty spans; and the three tokens of ☕, which hold one byte of it each, share the span of the
# whole character.

# %%
text = "Café ☕ at nine"
encoding = tokenizer.encode(text)
table = Table("id", "token", "span", r"text\[start:end]")
for token_id, (start, end) in zip(encoding.token_ids, encoding.offsets, strict=True):
    name = tokenizer.token_name(token_id).replace("[", r"\[")
    table.add_row(str(token_id), name, f"({start}, {end})", text[start:end])
show(table)

# %% [markdown]
# Offsets always refer to the text as it was **given**, even if the tokenizer lower-cases it or composes accents
# first. And they count code points, as Python does. JavaScript and Java count UTF-16 units, in which some emoji are
# two; `utf16_positions` translates.

# %%
lower = Tokenizer.train(utterances[:500], 400, normalizers=["nfc", "lowercase"])
decomposed = "CAFE\u0301"  # an E and a combining accent: two code points that NFC makes one
start, end = lower.encode(decomposed).offsets[-2]
print(f"{decomposed!r} has {len(decomposed)} code points; the é of its tokens comes from {(start, end)}")
text = "🎵 at nine"
print(f"'at' starts at code point {text.index('at')}, UTF-16 unit {utf16_positions(text)[text.index('at')]}")

# %% [markdown]
# ## 7. What vocabulary size buys
#
# More tokens mean shorter sequences, and attention pays for length. `size_curve` cuts a trained tokenizer back to
# smaller sizes (the first merges of a large vocabulary *are* the small one) and counts bytes per token. Each line is
# a tokenizer, measured on the text it learned from and on one it did not:

# %%
test_texts = {
    "utterances": [u.text for u in templates.generate(600 if SMALL else 7_000)[1]],
    studied: sources[studied][::7],
}
figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
for axes, (measured, texts) in zip(panels, test_texts.items(), strict=True):
    for name, tokenizer in trained.items():
        sizes, values = zip(*size_curve(tokenizer, texts, points=7), strict=True)
        axes.plot(sizes, values, marker="o", markersize=4, label=f"learned from {name}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
    axes.set(xlabel="vocabulary size (tokens)", title=f"measured on {measured}")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("bytes per token")
panels[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# Every doubling buys something, in the end less and less (the table below), and a tokenizer is worth most on text like
# its own. (The grammar's utterances repeat themselves far more than people do, so the left picture flatters the
# tokenizer that learned from them.)
#
# What does it cost? Every token needs a row in the table of word embeddings, 64 numbers in weebill's default encoder,
# and enough occurrences in training to learn it. Most tokens of a large vocabulary are rare:

# %%
tokenizer, texts = trained[studied], sources[studied]
sizes = [size for size in (512, 1_024, 2_048, 4_096) if size <= tokenizer.vocab_size]
table = Table("vocabulary", "bytes per token", "embedding parameters (64 wide)", "tokens met fewer than 10 times")
figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
for size in sizes:
    smaller = tokenizer.cut(size)
    counts = Counter(token_id for text in texts for token_id in smaller.encode_ordinary(text))
    ordinary = np.array([counts[i] for i in range(len(smaller.special_tokens), size)])
    table.add_row(
        f"{size:,}",
        f"{tokenizer_stats(smaller, texts).bytes_per_token:.2f}",
        f"{size * 64:,}",
        f"{100 * np.mean(ordinary < 10):.0f} %",
    )
    axes.plot(np.sort(ordinary)[::-1] + 0.5, label=f"{size:,} tokens")
axes.axhline(10, color="#999999", linestyle=":")
axes.set(xscale="log", yscale="log", xlabel="tokens, most frequent first", ylabel="occurrences")
axes.set_title(f"how often each token occurs in {studied} (dotted: 10 times)")
axes.legend()
plt.show()
show(table)

# %% [markdown]
# At the right end every curve falls off: bytes that the text never uses, which weigh most in the smallest vocabulary,
# and, as the vocabulary grows, ever more tokens that are met a handful of times. Their embeddings stay close to where
# they started. So a small model on little data wants a small vocabulary; weebill's recipes use 4,096 to 8,192.
#
# ## 8. Beside `tokenizers` and tiktoken
#
# weebill's tokenizer is written in Python and numpy. It would be worth little if it were not the same thing as what
# the rest of the field uses, so here are the two best-known implementations beside it, if they are installed: Hugging
# Face's `tokenizers` learns from the same texts, and tiktoken reads weebill's tokens from a file.

# %%
documents = [*test_texts["utterances"][:300], *sources[studied][:300], "naïve ☕ おはよう \n\n  x"]
mine = trained[studied]
readers = {"weebill": lambda texts: [mine.encode_ordinary(text) for text in texts]}
try:
    from tokenizers import Tokenizer as Peer
    from tokenizers import models, pre_tokenizers, trainers
except ImportError:
    print("tokenizers is not installed; pip install tokenizers")
else:
    peer = Peer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=mine.vocab_size,
        special_tokens=list(mine.special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer.train_from_iterator(sources[studied], trainer)
    theirs = [tuple(merge) for merge in json.loads(peer.to_str())["model"]["merges"]]
    ours = [(mine.token_name(a), mine.token_name(b)) for a, b in mine.merges]
    print(f"tokenizers: {len(theirs):,} merges, the same in the same order: {theirs == ours}")
    with tempfile.TemporaryDirectory() as folder:
        mine.save(folder)  # tokenizer.json, as Hugging Face libraries read it
        read = Peer.from_file(f"{folder}/tokenizer.json")
    same = sum(
        (e.ids, e.offsets) == (m.token_ids, m.offsets)
        for e, m in zip(read.encode_batch(documents), map(mine.encode, documents), strict=True)
    )
    print(f"tokenizers: same ids and offsets for {same} of {len(documents)} texts")
    readers["tokenizers"] = lambda texts: read.encode_batch_fast(texts, add_special_tokens=False)

# %%
try:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe
except ImportError:
    print("tiktoken is not installed; pip install tiktoken")
else:
    with tempfile.TemporaryDirectory() as folder:
        mine.save_tiktoken(Path(folder) / "mine.tiktoken")
        tokens = load_tiktoken_bpe(str(Path(folder) / "mine.tiktoken"))
    other = tiktoken.Encoding(
        "mine", pat_str=SPLIT_PATTERNS[mine.split_pattern], mergeable_ranks=tokens, special_tokens=mine.special_tokens
    )
    same = sum(other.encode_ordinary(text) == mine.encode_ordinary(text) for text in documents)
    print(f"tiktoken: same ids for {same} of {len(documents)} texts")
    readers["tiktoken"] = lambda texts: [other.encode_ordinary(text) for text in texts]

# %% [markdown]
# Same merges, same ids, same offsets. What about speed? Seconds belong to a machine and to what else it does, so the
# cell prints ratios: the processor time that each takes for the ids of the text learned from, a hundred lines at a
# time, as a multiple of weebill's. They take turns, and the middle one of nine rounds counts. weebill remembers the
# pretokens that it has met, and most words of a text have been met before; a tokenizer that has met none yet has a line
# of its own.

# %%
lines = sources[studied][: 1_000 if SMALL else 12_000]
hundreds = ["".join(lines[start : start + 100]) for start in range(0, len(lines), 100)]
readers["weebill, reading it for the first time"] = lambda texts: [fresh.encode_ordinary(text) for text in texts]
seconds = {name: [] for name in readers}
for _ in range(9):
    fresh = mine.cut(mine.vocab_size)  # the same tokenizer, without memories
    for name, read_all in readers.items():
        started = time.process_time()
        read_all(hundreds)
        seconds[name].append(time.process_time() - started)
for name, taken in seconds.items():
    print(f"{name}: {np.median(taken) / np.median(seconds['weebill']):.1f}")

# %% [markdown]
# The ratios change with the processor, with the versions of the three, and a little with every run; trust the order
# of magnitude. `tokenizers` makes offsets and the like beside ids, even when asked to be fast, and can use all cores,
# which processor time does not reward. `make bench-tokenizer` measures with more care, training and batches too; the
# README has what it printed last, on 20 MB, where first meetings are rarer and cost far less of the whole.
#
# ## On the real data
#
# What the cells of sections 4, 7 and 8 gave with `WEEBILL_DATA` set, on the first 30,000 lines (5.6 MB) of a sample of
# English Wikipedia, in 44 seconds of processor time; recorded once, for comparison with what you see above:
#
# | | Python's manual | English Wikipedia |
# |---|---|---|
# | bytes per token at 1,024 tokens | 2.85 | 2.43 |
# | … at 4,096 tokens | 3.97 | 3.32 |
# | tokens met fewer than 10 times, of 4,096 | 64 % | 3 % |
# | longest tokens | ZeroDivisionError, boundLocalError | Championships, International, approximately |
# | merges the same as `tokenizers` learns | all 3,836 | all 3,836 |
# | processor time: `tokenizers`, tiktoken, weebill's first reading | 4.4, 1.0, 5.2 × | 6.4, 1.0, 5.1 × |
#
# A manual repeats itself, so its tokens are long; but twelve times the text knows nearly all of its tokens well, which
# is what an encoder needs of it.
#
# ## 9. Keeping it
#
# `save` writes a folder that Hugging Face libraries read; `save_merge_map` the merges alone, in order of priority;
# `save_tiktoken` a file for tiktoken. `Tokenizer.load` reads all three, and the `tokenizer.json` of GPT-2 or RoBERTa
# as well.

# %%
with tempfile.TemporaryDirectory() as folder:
    mine.save(folder)
    mine.save_merge_map(Path(folder) / "bpe_merged.json")
    for path in sorted(Path(folder).iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    again = Tokenizer.load(folder)
print("same tokens after loading:", again.encode(sentence) == mine.encode(sentence))

# %% [markdown]
# From here, `Pretrain_SentenceTransformer.ipynb` gives each token a vector and trains an encoder to make sense of
# them. On the command line, `weebill tokenizer train`, `encode`, `stats`, `curve` and `convert` do what this notebook
# did.
#
# Things to try here: another `tiny_text`, perhaps with a typo in it; `split_pattern="gpt4"`, or
# `split_pattern="(?s).+"`, which lets merges cross everything, and look at the longest tokens; `min_frequency=10`; a
# language of yours.
