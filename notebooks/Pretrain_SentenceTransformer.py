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
# # Pretraining a sentence transformer
#
# A sentence transformer turns a text into one vector, so that texts that mean the same lie close together. This
# notebook builds up weebill's encoder part by part (embeddings, positions, attention, pooling, projection), draws the
# loss that trains it, trains it, and then switches off, one at a time, the things that a training loop is usually
# said to need.
#
# Run on embedded data it takes a few minutes of one processor core. The embedded data are paraphrases written by a
# small grammar: enough to see every effect, too little for an encoder you would want to keep. With STS-B and Quora
# Question Pairs in a folder (`weebill data fetch stsb --output data`, then `qqp` and, for the recipe at the end,
# `massive`, in the repository's folder), set `WEEBILL_DATA=data` or write the path below, and the same cells run on
# those; what they gave is at the end.

# %%
import os
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets; nothing here needs them
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display
from IPython.utils.capture import capture_output
from rich import print as show
from rich.table import Table

from weebill import ScoredPair, Tokenizer, load, templates
from weebill.attention_maps import attention_maps
from weebill.backend import TorchBackend
from weebill.config import PretrainRecipe, Source
from weebill.cooccurrence import neighbour_vectors
from weebill.evaluate_pairs import embed_pairs, pair_correlations, pair_groups
from weebill.geometry import principal_plane, unit_rows
from weebill.interchange import Losses
from weebill.losses import cosine_distance, triplet_loss
from weebill.pairs import read_pairs, write_pairs
from weebill.pictures import training_curves
from weebill.predictor import Predictor
from weebill.pretraining import pretrain
from weebill.recipe_files import load_recipe
from weebill.report import trainable
from weebill.schedule import warmup_cosine
from weebill.sent_transformer import SentenceTransformer
from weebill.sources import Mix, sample

DATA = os.environ.get("WEEBILL_DATA")  # or a path: a folder that holds stsb/ and qqp/
PLACES = [Path(DATA), Path("..", DATA)] if DATA else []  # a relative path is from here, or from the repository
SMALL = os.environ.get("WEEBILL_NOTEBOOK_SIZE") == "small"  # how the tests run it: the same cells on very little

# %% [markdown]
# ## 1. What it learns from: pairs
#
# Two public data sets are the classic diet of a small English encoder.
#
# - **STS Benchmark** (STS-B): pairs of sentences that people graded from 0 (nothing in common) to 5 (the same
#   meaning).
# - **Quora Question Pairs** (QQP): pairs of questions, each marked as duplicates or not.
#
# weebill reads both into one kind of value, `ScoredPair(a, b, score)` with a score from 0 to 1. Without the data, the
# embedded grammar stands in: for STS-B, pairs scored 1 (the same request in other words), 0.5 (the same kind of
# request with other values) and 0; for QQP, pairs that are duplicates and pairs that nearly are.

# %%
FILES = ("stsb/sts-train.csv", "stsb/sts-dev.csv", "qqp/train.tsv")
found = [place / file for file in FILES for place in PLACES if (place / file).is_file()][: len(FILES)]
if DATA and len(found) < len(FILES):
    print(f"WEEBILL_DATA does not hold all of {', '.join(FILES)} (weebill data fetch); embedded data instead")
if len(found) == len(FILES):  # samples of short pairs, so that the notebook takes minutes
    graded, dev, duplicates = (
        sample([p for p in read_pairs(path) if max(len(p.a), len(p.b)) <= 60], 100 if SMALL else size, seed=0)
        for path, size in zip(found, (2_000, 500, 1_800), strict=True)
    )
    source = "STS-B and QQP"
else:
    graded = templates.paraphrase_pairs("train", 60 if SMALL else 3_000)
    dev = templates.paraphrase_pairs("dev", 60 if SMALL else 600)
    triplets = templates.paraphrase_triplets("train", 120 if SMALL else 1_600)
    duplicates = [ScoredPair(a, b, score) for a, p, n in triplets for b, score in ((p, 1.0), (n, 0.0))]
    source = "the embedded grammar"
print(f"from {source}: {len(graded):,} graded pairs, {len(duplicates):,} marked ones; {len(dev):,} graded for dev")
for pair in graded[:3] + duplicates[:2]:
    print(f"{pair.score:.2f}  {pair.a!r}\n      {pair.b!r}")

# %% [markdown]
# On disk the two look like this. STS-B separates seven fields by tabs and quotes nothing; QQP has a header and quotes
# as CSV does. A reader that takes one for the other loses rows without a word, so weebill reads them by their own
# rules.

# %%
with tempfile.TemporaryDirectory() as folder:
    for format, pairs in (("sts", graded), ("qqp", duplicates)):
        write_pairs(Path(folder) / format, pairs[:2], format, Losses())
        print(f"{format}:", (Path(folder) / format).read_text(), sep="\n")

# %% [markdown]
# An encoder needs a tokenizer first (see `Tokenizer-walkthrough.ipynb`). This one is learned from the very texts of
# the pairs.

# %%
texts = list(dict.fromkeys(text for pair in graded + duplicates for text in (pair.a, pair.b)))
tokenizer = Tokenizer.train(texts, 600 if SMALL else 2_048, normalizers=["lowercase"])
sentence = "wake me up at nine am on friday"
print(f"{len(texts):,} different texts, {tokenizer.vocab_size:,} tokens; {sentence!r} is {tokenizer.pieces(sentence)}")

# %% [markdown]
# ## 2. From tokens to vectors
#
# A recipe says how large an encoder is and how it is trained. This is the shipped recipe `demo-pretrain` with three
# changes that pay on small data: the sentence vector is the **mean** of the token states, word embeddings learn ten
# times faster than the rest, and pairs graded 0.5 or more count as positives (section 5 shows what that does).

# %%
SETTINGS = [
    "encoder.pooling=mean",
    "training.embedding_learning_rate=2e-2",
    "loss.positive_score=0.5",
    f"training.epochs={1 if SMALL else 3}",
    f"training.evals={2 if SMALL else 8}",
    "training.patience=100",
    *(["encoder.num_layers=2"] if SMALL else []),
]
recipe = load_recipe("demo-pretrain", PretrainRecipe, SETTINGS)
torch.manual_seed(recipe.seed)
untrained = SentenceTransformer(recipe.encoder, tokenizer).eval()

batch = tokenizer.encode_batch([sentence, "play some jazz"])
ids_BT, mask_BT = torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.attention_mask_BT)
with torch.no_grad():
    words_BTD = untrained.word_embeddings(ids_BT)
    hidden_BTD, embedding_BE = untrained(ids_BT, mask_BT)
shapes = Table("what", "shape", "meaning", title="two texts on their way through the encoder")
shapes.add_row("input_ids", str(tuple(ids_BT.shape)), "texts × tokens, the shorter one padded")
shapes.add_row("word embeddings", str(tuple(words_BTD.shape)), "one row of a learned table per token")
shapes.add_row("token states", str(tuple(hidden_BTD.shape)), f"after {recipe.encoder.num_layers} layers")
shapes.add_row("sentence embedding", str(tuple(embedding_BE.shape)), "after pooling and projection")
show(shapes)

# %% [markdown]
# ### Positions
#
# Attention, which comes next, compares tokens without regard to order: to it, "dog bites man" and "man bites dog" are
# the same bag. So every position has a vector of its own, which is added to the word's. weebill uses the fixed table
# of Vaswani et al. (2017): each pair of columns is a sine and a cosine of the position, from fast waves on the left
# to slow ones on the right, like a clock with many hands. (On the far right the waves are so long that within one
# text the sines stay near 0 and the cosines near 1: the stripes.)
#
# The right picture shows why it is useful. The dot product of two position vectors depends on nothing but the
# **distance** between the positions: the three curves, taken around three different positions, lie on top of each
# other. A head can learn "look at the token before me" once, and it holds everywhere in the text.

# %%
table_TD = untrained.position_table_TD.numpy()
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
image = left.imshow(table_TD, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
left.set(xlabel="dimension", ylabel="position (token)", title="the table that is added to the word embeddings")
figure.colorbar(image, ax=left)
for position, style in ((30, "-"), (60, "--"), (90, ":")):
    offsets = np.arange(-30, 31)
    right.plot(offsets, table_TD[position + offsets] @ table_TD[position], style, label=f"around position {position}")
right.set(xlabel="distance in tokens", ylabel="dot product", title="how alike two positions are")
right.legend()
plt.show()

# %% [markdown]
# Words and positions are added up, so neither may drown the other. That is why word embeddings start with about the
# length of the position vectors:

# %%
ordinary = untrained.word_embeddings.weight[len(tokenizer.special_tokens) :].detach()
print(f"mean length of a word embedding: {ordinary.norm(dim=1).mean():.2f}")
print(f"mean length of a position:       {untrained.position_table_TD.norm(dim=1).mean():.2f}")

# %% [markdown]
# ### Attention
#
# In each layer every token asks all tokens a question (its *query*), is compared with what they offer (their *keys*),
# and takes a mix of what they say (their *values*), in proportion to softmax(q·k / √K). Several heads do that side by
# side, each with its own small matrices. `attention_maps` returns those proportions. Here they are for the untrained
# encoder, row by row where a token looks, bright where it looks most. There is a little noise and no pattern; section
# 6 draws the same picture, in the same colours, after training.


# %%
def draw_heads(encoder, title):
    names, maps_NHST = attention_maps(encoder, sentence)
    layers, heads = maps_NHST.shape[:2]
    figure, panels = plt.subplots(layers, heads, figsize=(11, 1.45 * layers), layout="constrained", squeeze=False)
    for layer, head in np.ndindex(layers, heads):
        panels[layer, head].imshow(maps_NHST[layer, head], cmap="viridis", vmin=0, vmax=0.6)
        panels[layer, head].set(xticks=[], yticks=[])
        if layer == 0:
            panels[layer, head].set_title(f"head {head + 1}", fontsize=8)
        if head == 0:
            panels[layer, head].set_ylabel(f"layer {layer + 1}", fontsize=8)
    figure.suptitle(f"{title}: {' '.join(names)}", fontsize=10)
    plt.show()


draw_heads(untrained, "before training")
# %% [markdown]
# ### Pooling and projection
#
# The layers leave one vector per token. **Pooling** makes one of them: the mean over the real tokens (padding must
# not count, or a text would change with its neighbours in the batch), or the state of `[CLS]`, a token that stands
# before every text for that purpose. The **projection** is a linear layer on top, which gives the sentence vector a
# space of its own to be compared in, apart from the one that token states are needed in. By hand it is two lines, and
# gives what the model gives:

# %%
with torch.no_grad():
    mean_BD = (hidden_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
    by_hand_BE = untrained.projection(mean_BD)
print("largest difference from the model's own embedding:", float((by_hand_BE - embedding_BE).abs().max()))

# %% [markdown]
# ## 3. The loss: a triplet and its geometry
#
# Closeness is measured by **cosine distance**, 1 − cos of the angle, so only directions count and every text can be
# drawn on a circle (in fact a sphere of as many dimensions as the embedding has). A triplet is an anchor, a positive
# that means the same, and a negative that does not. The loss asks that the negative be further from the anchor than
# the positive, and not just barely, but by a **margin**:
#
# $$\text{loss} = \max(0,\; d(\text{anchor}, \text{positive}) - d(\text{anchor}, \text{negative}) + \text{margin})$$
#
# The pictures show three triplets that differ in their negative alone. The grey arc is where a negative costs
# nothing. The arrows are the step that gradient descent would take, computed by torch from weebill's own loss: the
# positive is pulled towards the anchor, the negative is pushed away from it, and the anchor moves towards the one and
# away from the other. In the third picture all arrows are gone: a triplet that is already right teaches nothing,
# which is why it matters which negatives are chosen.

# %%
MARGIN = recipe.loss.margin


def on_circle(degrees):
    return torch.tensor([[np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]], dtype=torch.float32)


figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for axes, (name, negative_at) in zip(panels, (("hard", 62), ("inside the margin", 166), ("easy", 215)), strict=True):
    points = {"anchor": on_circle(90), "positive": on_circle(20), "negative": on_circle(negative_at)}
    for point in points.values():
        point.requires_grad_()
    loss = triplet_loss(*points.values(), margin=MARGIN)
    loss.backward()
    axes.add_patch(plt.Circle((0, 0), 1, fill=False, color="#999999"))
    needed = cosine_distance(points["anchor"], points["positive"]).item() + MARGIN
    free = np.linspace(np.arccos(1 - needed), 2 * np.pi - np.arccos(1 - needed), 100) + np.pi / 2
    axes.plot(np.cos(free), np.sin(free), color="#cccccc", linewidth=9, solid_capstyle="butt", zorder=0)
    for (label, point), colour in zip(points.items(), ("#222222", "#2ca02c", "#d62728"), strict=True):
        (x, y), (dx, dy) = point.detach()[0].tolist(), (-0.6 * point.grad[0]).tolist()
        axes.plot([0, x], [0, y], color=colour, linewidth=1)
        axes.scatter(x, y, color=colour, zorder=3)
        axes.annotate(label, (1.13 * x, 1.13 * y), color=colour, ha="center", va="center", fontsize=9)
        if abs(dx) + abs(dy) > 0:
            axes.annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.35, 1.5), aspect="equal", title=f"{name}: loss {loss.item():.2f}")
    axes.axis("off")
plt.show()

# %% [markdown]
# Along the circle, the loss of a negative is a curve that falls to zero where the grey arc begins. A larger margin
# moves that place outwards: more negatives count, and the encoder must spread texts further apart to satisfy them.

# %%
angles = torch.arange(0, 181)
anchors_ND, positives_ND = on_circle(0).expand(len(angles), 2), on_circle(50).expand(len(angles), 2)
negatives_ND = torch.cat([on_circle(float(angle)) for angle in angles])
gap_N = cosine_distance(anchors_ND, positives_ND) - cosine_distance(anchors_ND, negatives_ND)
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for margin in (0.1, 0.3, 0.5):
    axes.plot(angles, torch.relu(gap_N + margin), label=f"margin {margin}")
axes.axvline(50, color="#2ca02c", linestyle=":")
axes.annotate("the positive is here", (51, 0.75), color="#2ca02c", fontsize=8)
axes.set(xlabel="angle between anchor and negative (degrees)", ylabel="triplet loss")
axes.legend()
plt.show()

# %% [markdown]
# In training, a triplet comes from a pair that scores high and a negative taken from a pair that scores low, or drawn
# at random. But a batch holds many more negatives for free: every other text in it. `demo-pretrain` uses
# `losses.batch_triplet_loss`, which takes all of them, those closest to the anchor with the greatest weight. Section
# 5 shows what that is worth.

# %% [markdown]
# ## 4. Training
#
# `pretrain` is the function behind `weebill pretrain`. It tells what it does in events; the first one says what will
# be trained. Note the table of word embeddings: no layer of the transformer is as large, and it grows with the
# vocabulary.


# %%
def run(*overrides):
    """Pretrain by the recipe with some keys changed; return encoder, events and processor seconds."""
    recipe = load_recipe("demo-pretrain", PretrainRecipe, [*SETTINGS, *overrides])
    mix, events = Mix(recipe), []
    mix.add_pairs(Source(path="graded pairs"), graded)
    mix.add_pairs(Source(path="duplicates"), duplicates)
    started = time.process_time()
    with capture_output():  # a progress bar
        encoder, _ = pretrain(recipe, mix, dev, events.append, tokenizer)
    return encoder, events, time.process_time() - started


encoder, base, base_seconds = run()
show(trainable(base[0]["table"], base[0]["fixed"]))

# %% [markdown]
# The left picture is what is minimised, the middle one what we want: the Spearman correlation of cosine similarity
# with the grades of dev pairs, whose wording training never saw. Spearman asks about order alone: are pairs graded
# higher also closer? The right picture is the learning rate, after its warm-up: half a cosine
# down.

# %%
display(Image(training_curves(base), width=900))

# %% [markdown]
# ## 5. What each part of the loop is for: switch it off
#
# A training loop is full of things that "one does". Each run below is the one above with a single thing changed. They
# are short, and one seed each: a difference of a point or two between two curves may be chance (repeat with
# `"seed=1"` before believing it). The large differences are not.


# %%
def dev_curve(events):
    rows = [event for event in events if event["event"] == "eval"]
    return [row["step"] for row in rows], [100 * row["metrics"]["spearman"] for row in rows]


def overlay(title, runs):
    _, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for (name, events), style in zip(runs.items(), ("-", "--", "-."), strict=False):
        axes.plot(*dev_curve(events), style, marker="o", markersize=4, label=name)
    axes.set(xlabel="step", ylabel="dev Spearman × 100", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    plt.show()


# %% [markdown]
# ### Which pairs are positives
#
# A triplet needs to know what belongs together. `loss.positive_score` draws that line through the grades. At its
# default of 0.7, the pairs graded 0.5 are neither positives nor negatives: no triplet ever speaks for them, half of
# the marked negatives (the anchor with one value exchanged) speak against what they have in common, and the encoder
# sorts by values. At 0.5 they are positives, and it learns that the kind of request counts too. The right picture has
# what became of each grade: the lines should fall from left to right.


# %%
def as_predictor(encoder):
    return Predictor(tokenizer, TorchBackend(encoder), encoder.config.max_seq_len, encoder.config.embedding_dim)


stricter, strict, _ = run("loss.positive_score=0.7")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for name, events, trained, style in (
    ("positive from 0.5", base, encoder, "-"),
    ("positive from 0.7", strict, stricter, "--"),
):
    left.plot(*dev_curve(events), style, marker="o", markersize=4, label=name)
    groups = pair_groups(embed_pairs(as_predictor(trained), dev))
    medians = [np.median(group.similarity_N) for group in groups]
    right.plot([group.name for group in groups], medians, style, marker="o", label=name)
left.set(xlabel="step", ylabel="dev Spearman × 100", title="which pairs are positives")
right.set(ylabel="median cosine similarity on dev", title="what becomes of each grade")
left.grid(alpha=0.3), right.grid(alpha=0.3)
right.tick_params(axis="x", labelsize=8)
left.legend()
plt.show()
for name, events in (("0.5", base), ("0.7", strict)):
    print(f"positive from {name}: best dev Spearman {max(dev_curve(events)[1]):.2f}")

# %% [markdown]
# ### Negatives from the batch
#
# Off, each triplet is left with the single negative it came with.

# %%
_, own_negatives, _ = run("loss.kind=triplet")
overlay("negatives of the whole batch", {"on": base, "off: each triplet has one": own_negatives})

# %% [markdown]
# ### AMP: automatic mixed precision
#
# Under autocast, matrix products run in a 16-bit format: half the memory traffic, and on GPUs with matrix units
# several times the speed. In `fp16`, whose smallest numbers are not very small, gradients are scaled up first so that
# they do not round to zero (that is the *scaler*); `bf16` has the range of float32 and needs none. weebill switches
# AMP on by itself on a GPU and leaves it **off on CPU**. Here it is forced on, to see what it would do. The learning
# curve is the same to within rounding. The time is another matter: a processor has such products or has not, and this
# encoder is 64 wide, so that converting back and forth may cost what they save. Judge by the ratio that the cell
# prints for your processor; we have seen 0.6 to 1.2.

# %%
_, with_amp, amp_seconds = run("training.precision=bf16")
overlay("AMP on this CPU", {"off: float32": base, "on: bf16": with_amp})
apart = np.abs(np.subtract(dev_curve(base)[1], dev_curve(with_amp)[1])).max()
print(f"largest difference of the two curves: {apart:.2f} points")
print(f"processor time with AMP, as a multiple of the time without: {amp_seconds / base_seconds:.2f}")

# %% [markdown]
# ### Gradient clipping
#
# If the gradient of a batch is longer than `max_grad_norm`, it is shortened to that length. Off means: a limit so
# high that nothing reaches it. First in the run from above:

# %%
UNLIMITED = "training.max_grad_norm=1e9"
_, unclipped, _ = run(UNLIMITED)
overlay("clipping at a moderate learning rate", {"on": base, "off": unclipped})
apart = np.abs(np.subtract(dev_curve(base)[1], dev_curve(unclipped)[1])).max()
print(f"largest difference of the two curves: {apart:.2f} points")

# %% [markdown]
# Clipping is an insurance, and if the two curves above lie on each other, nothing happened that it insures against:
# the gradients of this loss never got that long. Now the accident, made on purpose: at the same learning rate, a loss
# with a very steep softmax (in-batch negatives, temperature 0.01), whose gradient is as many times longer as the
# temperature is lower. The dotted line is the loss that an encoder has when all its embeddings are equal, the logarithm
# of the number of candidates. Without clipping, the first steps throw the run up there, and it takes half of its
# length to come down again.

# %%
STEEP = ("loss.kind=in_batch_negatives", "loss.temperature=0.01")
_, steep_on, _ = run(*STEEP)
_, steep_off, _ = run(*STEEP, UNLIMITED)
figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
for name, events in (("clipping on", steep_on), ("clipping off", steep_off)):
    rows = [event for event in events if event["event"] == "eval"]
    axes.plot([row["step"] for row in rows], [sum(row["losses"].values()) for row in rows], marker="o", label=name)
axes.axhline(np.log(2 * recipe.training.batch_size), color="#999999", linestyle=":")
axes.set(xlabel="step", ylabel="training loss", title="in-batch negatives, temperature 0.01")
axes.legend()
plt.show()
for name, events in (("on", steep_on), ("off", steep_off)):
    print(f"clipping {name}: best dev Spearman {max(dev_curve(events)[1]):.2f}")

# %% [markdown]
# ### Cosine annealing and warm-up
#
# Large steps find the region, small steps find the place in it. The cosine schedule goes from one to the other
# without a date to choose; the warm-up spares the first steps, while Adam has not yet learned how large gradients
# are. Off: one rate from the first step to the last.
#
# On the embedded data, at the rate of the runs above, the schedule is worth a few points, and the constant rate wanders
# to its end. At three times that rate, what matters is the warm-up: without it the run collapses in its first steps
# (all texts get one embedding, and no gradient leads back), with it the constant rate does about as well as the
# schedule. Neither is as good as a rate that is not too high.

# %%
CONSTANT = ("training.final_fraction=1.0", "training.warmup_fraction=0")
HOT = "training.learning_rate=6e-3"
_, constant, _ = run(*CONSTANT)
_, hot, _ = run(HOT)
_, hot_warm, _ = run(HOT, CONSTANT[0])
_, hot_constant, _ = run(HOT, *CONSTANT)
steps = base[-1]["steps"]
warm = max(1, int(steps * recipe.training.warmup_fraction))
figure, panels = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
panels[0].plot([warmup_cosine(s, steps, warm, recipe.training.final_fraction) for s in range(steps)], label="on")
panels[0].plot([warmup_cosine(s, steps, 1, 1.0) for s in range(steps)], "--", label="off")
panels[0].set(xlabel="step", ylabel="share of the peak rate", title="the schedule")
for axes, title, on, off in (
    (panels[1], "rate 2e-3", base, constant),
    (panels[2], "rate 6e-3", hot, hot_constant),
):
    axes.plot(*dev_curve(on), "-", marker="o", markersize=4, label="on")
    axes.plot(*dev_curve(off), "--", marker="o", markersize=4, label="off: constant from the start")
    axes.set(xlabel="step", ylabel="dev Spearman × 100", title=title)
    axes.grid(alpha=0.3)
panels[2].plot(*dev_curve(hot_warm), ":", marker="o", markersize=4, label="warm-up, then constant")
panels[1].sharey(panels[2])
panels[2].legend(fontsize=8)
plt.show()
for name, events in (
    ("2e-3 on", base),
    ("2e-3 off", constant),
    ("6e-3 on", hot),
    ("6e-3 warm-up alone", hot_warm),
    ("6e-3 off", hot_constant),
):
    print(f"{name}: last dev Spearman {dev_curve(events)[1][-1]:.2f}")

# %% [markdown]
# ### Words that know their neighbours
#
# So far every word started at a random place, and could only learn from pairs that it is in. But the texts say more:
# words that stand near the same words are alike, whether or not anybody graded a pair (Firth 1957: "you shall know a
# word by the company it keeps"). `neighbour_vectors` counts which tokens stand within five tokens of each other,
# takes the positive pointwise mutual information of the counts (how much more often than chance), and keeps the
# strongest directions of that table (an SVD). It is what word2vec learns, without a single step of training. These
# are the nearest of all tokens by those vectors. What they share is company, which is often meaning, but not always: an
# `alarm` keeps company with what one does to it.

# %%
torch.manual_seed(0)
counted = (tokenizer.encode_ordinary(text) for text in texts)
vectors_VD = unit_rows(neighbour_vectors(counted, tokenizer.vocab_size, recipe.encoder.hidden_dim))
for word in ("friday", "kitchen", "dollars", "nine", "alarm", "man", "dog", "red", "year"):
    if len(ids := tokenizer.encode_ordinary(f" {word}")) == 1 and vectors_VD[ids[0]].any():
        nearest = np.argsort(-(vectors_VD @ vectors_VD[ids[0]]))[1:7]
        print(f"{word}: {', '.join(tokenizer.token_name(i).replace('Ġ', '') for i in nearest)}")

# %% [markdown]
# A recipe gives its word embeddings that start with one key. It pays most where pairs are few: the words of dev
# phrasings that training pairs hardly show are no longer strangers.

# %%
NEIGHBOURS = "word_embeddings=neighbours"
encoder, by_neighbours, _ = run(NEIGHBOURS)
overlay("where word embeddings start", {"beside their neighbours": by_neighbours, "at random": base})
for name, events in (("beside their neighbours", by_neighbours), ("at random", base)):
    print(f"{name}: first dev Spearman {dev_curve(events)[1][0]:.2f}, best {max(dev_curve(events)[1]):.2f}")

# %% [markdown]
# ### Early stopping
#
# With enough passes over the same pairs, an encoder learns the pairs themselves: the training loss keeps falling
# while dev has little more to gain, or loses. Early stopping ends the run after `patience` evaluations without a
# better dev score. In either case weebill keeps the weights of the **best** evaluation, not of the last one; so what
# patience saves is time, and what it risks is to miss a late improvement. Here is the last run at three times the
# length. A patience of 3 is short, for the picture's sake; recipes for real runs have 5 to 10.

# %%
LONGER = (NEIGHBOURS, f"training.epochs={2 if SMALL else 10}", f"training.evals={4 if SMALL else 20}")
longer, stopped, _ = run(*LONGER, "training.patience=3")
_, not_stopped, _ = run(*LONGER)
figure, panels = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for (name, events), style in zip({"off": not_stopped, "on": stopped}.items(), ("-", "--"), strict=True):
    rows = [event for event in events if event["event"] == "eval"]
    steps = [row["step"] for row in rows]
    panels[0].plot(steps, [sum(row["losses"].values()) for row in rows], style, marker="o", markersize=4, label=name)
    panels[1].plot(*dev_curve(events), style, marker="o", markersize=4, label=name)
panels[0].set(xlabel="step", ylabel="training loss")
panels[1].set(xlabel="step", ylabel="dev Spearman × 100")
panels[1].legend()
plt.show()
for name, events in (("on", stopped), ("off", not_stopped)):
    end = events[-1]
    best = f"{100 * end['metrics']['spearman']:.2f} at step {end['best_step']}"
    print(f"{name}: {end['steps']} steps, best dev Spearman {best}")

# %% [markdown]
# ## 6. The embedding space before and after
#
# We keep the better one, by dev score, of the two encoders whose words started beside their neighbours: that of the
# short run, whose learning rate came down in time, or that of the stopped one. Here is what it learned.
#
# **The heads.** Compared with the untrained encoder, many heads now have a preference.

# %%
short_best, longer_best = max(dev_curve(by_neighbours)[1]), max(dev_curve(stopped)[1])
if longer_best > short_best:
    encoder = longer
print(f"short run {short_best:.2f}, stopped run {longer_best:.2f}")
draw_heads(encoder, "after training")

# %% [markdown]
# Two of them with their tokens. In the *pointing* head, nearly all tokens agree on where to look: row by row, the
# light is in the same column. For a sentence vector that is a mean over tokens, this is how an encoder says "these
# words count". In the *choosing* head, every token has something definite to look at (its row has a bright spot), but
# the rows do not agree: where a token looks depends on the token that is looking. Heads that only look at the token
# before, as books like to show, need not be among them: nothing in this loss asks for the order of words as long as
# the words tell the texts apart.

# %%
names, maps_NHST = attention_maps(encoder, sentence)
pointing_NH = maps_NHST.mean(axis=2).max(axis=-1)
choosing_NH = maps_NHST.max(axis=-1).mean(axis=-1) - pointing_NH  # each row is sure, and they do not agree
figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for axes, (kind, score_NH) in zip(panels, (("pointing", pointing_NH), ("choosing", choosing_NH)), strict=True):
    layer, head = np.unravel_index(score_NH.argmax(), score_NH.shape)
    axes.imshow(maps_NHST[layer, head], cmap="viridis", vmin=0)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(title=f"{kind} head: layer {layer + 1}, head {head + 1}", xlabel="looks at", ylabel="token")
plt.show()

# %% [markdown]
# **The similarities.** Dev pairs by grade, and as many random pairs; mind the scales. Before training all texts point
# roughly the same way, whatever their grade: even random pairs are near 0.9. After it, random pairs stand at right
# angles, and the grades above them come out in their order.
#
# Look at how far apart they are, too. Pairs graded 0.5 are the same kind of request with every value exchanged; pairs
# graded 0 are different requests that share a value. Both are half alike, and which half counts for more is a
# decision: of section 5, where 0.5 was made a positive, and of the marked negatives, half of which are the anchor
# with one value exchanged. A loss gets what its data ask for.

# %%
stages = {"before": as_predictor(untrained), "after": as_predictor(encoder)}
figure, panels = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", sharey=True)
for axes, (stage, predictor) in zip(panels, stages.items(), strict=True):
    groups = pair_groups(embed_pairs(predictor, dev))
    axes.boxplot([group.similarity_N for group in groups], orientation="horizontal", showfliers=False, widths=0.6)
    axes.set_yticks(range(1, len(groups) + 1), [group.name for group in groups])
    spearman = pair_correlations(predictor, dev)["spearman"]
    axes.set(xlabel="cosine similarity", title=f"{stage}: Spearman {100 * spearman:.2f}")
panels[0].invert_yaxis()
plt.show()

# %% [markdown]
# **The map.** First pairs: all dev texts on the two axes of most variance, with lines between the texts of some pairs
# that mean the same (score 0.8 or more). Short lines are what the loss asked for. The axes' shares of the variance
# say how little of the space a flat picture can show.

# %%
figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for axes, (stage, predictor) in zip(panels, stages.items(), strict=True):
    embedded = embed_pairs(predictor, dev)
    points_M2, shares = principal_plane(embedded.vectors_MD)
    axes.scatter(*points_M2.T, s=5, color="#dddddd")
    close = np.flatnonzero(embedded.positive_N)[:40]
    ends_2N = np.stack([embedded.first_N[close], embedded.second_N[close]])
    axes.plot(*points_M2[ends_2N].transpose(2, 0, 1), color="#1f77b4", linewidth=1, marker="o", markersize=3)
    axes.set(xlabel=f"{100 * shares[0]:.0f} % of the variance", ylabel=f"{100 * shares[1]:.0f} %", title=stage)
plt.show()

# %% [markdown]
# Then intents: utterances of dev coloured by what is asked for, on the two axes on which those shown differ most. This
# notebook's encoder was never told an intent, and no phrasing of these texts was in its training. The third map is the
# model that ships with weebill, which learned from a large sentence encoder and was fine-tuned on the intents of other
# data.
#
# A flat map hides more than it shows, so there is a number beside it: for how many utterances is the nearest one of
# *another template* of the same intent? (Of any template it would be high even before training, as texts of one
# template share most of their words.)

# %%
utterances = templates.generate(600 if SMALL else 4_000)[1]
intents, phrasings = np.array([u.intent for u in utterances]), np.array([u.key for u in utterances])
shown = ["set_alarm", "cancel_alarm", "set_timer", "play_music", "weather", "book_flight", "send_message", "translate"]
figure, panels = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for axes, (stage, predictor) in zip(panels, (stages | {"shipped with weebill": load()}).items(), strict=True):
    vectors_ND = unit_rows(predictor.embed([u.text for u in utterances]))
    points_N2, shares = principal_plane(vectors_ND[np.isin(intents, shown)])
    for intent in shown:
        axes.scatter(*points_N2[intents[np.isin(intents, shown)] == intent].T, s=14, label=intent)
    axes.set(xlabel=f"{100 * shares[0]:.0f} % of the variance", ylabel=f"{100 * shares[1]:.0f} %", title=stage)
    similarity_NN = np.where(phrasings[:, None] == phrasings, -np.inf, vectors_ND @ vectors_ND.T)
    right = intents[similarity_NN.argmax(axis=1)] == intents
    print(f"{stage}: the nearest in other words has the same intent for {100 * right.mean():.0f} % of all utterances")
panels[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()

# %% [markdown]
# ## On the real data
#
# What the same cells gave with `WEEBILL_DATA` set, on 2,000 pairs of STS-B, 1,800 of QQP and 500 of STS-B's dev, all
# of at most 60 characters, in 149 seconds of processor time; recorded once, one seed. Scores are Spearman × 100 on
# those dev pairs, short ones, and so no result on STS-B:
#
# | | embedded | STS-B and QQP |
# |---|---|---|
# | Spearman before training | 35.41 | 43.13 |
# | … after the run of section 4 (positive from 0.5) | 67.05 | 59.09 |
# | … positive from 0.7 | 56.13 | 55.07 |
# | … words beside their neighbours | 76.50 | 64.12 |
# | … at three times the length | 75.25 at step 203 of 570, stopped at 290 | 71.77 at step 228 of 230 |
# | last score at 2e-3, schedule on and off | 66.76, 64.35 | 59.09, 59.03 |
# | … at 6e-3: on, warm-up alone, off | 51.26, 50.72, 7.22 | 18.75, 25.64, 31.84 |
# | temperature 0.01, clipping on and off | 67.73, 54.37 | 60.47, 57.82 |
# | nearest in other words has the same intent | 8 → 63 % | 10 → 13 % |
#
# Real pairs are few here and make 69 steps in three epochs: too short a run for the schedule to matter, and the long
# one is still gaining when it ends, so that nothing stops it early. Words beside their neighbours, positives from 0.5
# and clipping help as they do above. The utterances of the last row are nothing like what this encoder read. At full
# length, the README has the score.
#
# ## 7. Where to go from here
#
# - On STS-B and QQP, `weebill pretrain sts-qqp --output runs/pretrained` does what this notebook did, at full length;
#   `docs/pretraining.md` lists what else an encoder can learn from.
# - `encoder.save("runs/mine")` writes a folder that `sentence-transformers` loads as it is.
# - `Train_MultiTask_Model.ipynb` puts an intent and an entity head on such an encoder.
#
# Things to try here, each one line: `"encoder.pooling=cls"`; `"loss.margin=0.1"`; `"loss.temperature=10"`, which
# counts all negatives alike; `"encoder.num_layers=1"`; another seed for any pair of curves you drew a conclusion
# from.
