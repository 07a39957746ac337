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
# # Training a joint model: intent and entities in one pass
#
# An assistant that hears "wake me up at nine am on friday" must know *what is wanted* (the intent: set an alarm) and
# *the particulars* (the entities: a time and a date). One encoder can read the text once for both, with two small
# heads on top. This notebook shows what such a model is trained on, where its labels get lost, how rare labels are
# treated, what freezing and learning rates per layer do, which scores to look at, and how the result is read,
# exported and used.
#
# Without data it runs on weebill's embedded utterances, which a grammar writes; dev has phrasings that training never
# shows. With MASSIVE (`weebill data fetch massive --output data`, in the repository's folder), set `WEEBILL_DATA=data`
# or write the path below; what the same cells gave on it is at the end. Runs are short so that the notebook takes a few
# minutes; `weebill finetune massive` is the same thing at full length.

# %%
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets; nothing here needs them
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display
from IPython.utils.capture import capture_output
from rich import print as show
from rich.table import Table

import weebill
from weebill import Entity, Predictor, ScoredPair, Tokenizer, templates
from weebill.backend import TorchBackend
from weebill.config import FinetuneRecipe, PretrainRecipe, Source
from weebill.data import class_weights, label_rows, sampling_weights
from weebill.evaluate import evaluate
from weebill.export import export_onnx
from weebill.finetuning import finetune
from weebill.formats import read_utterances
from weebill.label_facts import labels_of
from weebill.metrics import span_errors
from weebill.pictures import training_curves
from weebill.pretraining import pretrain
from weebill.recipe_files import load_recipe
from weebill.report import coloured, scores, trainable
from weebill.sources import Mix, sample
from weebill.tags import MISSING, align, spans_from_tags, tag_vocabulary

DATA = os.environ.get("WEEBILL_DATA")  # or a path: a folder that holds massive/en-US.jsonl
PLACES = [Path(DATA), Path("..", DATA)] if DATA else []  # a relative path is from here, or from the repository
SMALL = os.environ.get("WEEBILL_NOTEBOOK_SIZE") == "small"  # how the tests run it: the same cells on very little
FOLDER = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. The data
#
# An utterance is a text, an intent, and entities as spans of **characters**: `start` is the first character, `end`
# the first one after it. Characters, not tokens and not words, because the text is the one thing that annotators,
# tokenizers and applications agree on. MASSIVE writes the same as `[time : nine am]` inside the text; weebill reads
# that and half a dozen other formats into these values.

# %%
massive = [place / "massive/en-US.jsonl" for place in PLACES if (place / "massive/en-US.jsonl").is_file()]
if DATA and not massive:
    print("WEEBILL_DATA has no massive/en-US.jsonl (weebill data fetch massive); embedded data instead")
if massive:
    train, dev = (read_utterances(massive[0], split=split) for split in ("train", "dev"))
    train, dev = sample(train, 400 if SMALL else 3_000, seed=0), sample(dev, 100 if SMALL else 600, seed=0)
else:
    train, dev = templates.generate(400 if SMALL else 3_500)
intents, labels = labels_of(train)
print(f"{len(train):,} utterances to train on, {len(dev):,} for dev")
print(f"{len(intents)} intents, {len(labels)} kinds of entities")
for utterance in train[:4]:
    marked = [(utterance.text[e.start : e.end], e.label) for e in utterance.entities]
    print(f"\n{utterance.text!r}\n  intent {utterance.intent}, entities {marked}")

# %% [markdown]
# ## 2. From characters to tokens: label alignment
#
# The model reads tokens, so each token needs a tag. **BIO** tags say whether a token *begins* an entity (`B-time`),
# is *inside* one (`I-time`), or *outside* all of them (`O`). The tokenizer gives every token's span of characters,
# and `align` puts the two together. The sentence below holds a city that the training data does not know, so it falls
# into several tokens: the first gets `B-city`, those that go on with it `I-city`. Tokens that stand for no
# characters, as `[CLS]`, `[SEP]` and a lone space do, get no tag; their label is the number that the loss ignores.

# %%
tokenizer = Tokenizer.train((u.text for u in train), 600 if SMALL else 1_024, normalizers=["lowercase"])
text = "will it rain in Zanzibar on friday morning"


def entity(value, label):
    return Entity(text.index(value), text.index(value) + len(value), label)


def alignment(entities):
    tags = tag_vocabulary(["city", "date"])
    encoding = tokenizer.encode(text)
    ids, misaligned = align(entities, encoding, {tag: i for i, tag in enumerate(tags)})
    table = Table("token", "characters", "of the text", "tag")
    for token_id, (start, end), tag in zip(encoding.token_ids, encoding.offsets, ids, strict=True):
        shown = "no loss" if tag == MISSING else tags[tag]
        table.add_row(tokenizer.token_name(token_id).replace("[", r"\["), f"{start}–{end}", text[start:end], shown)
    show(table)
    return encoding, [tags[i] if i != MISSING else "O" for i in ids], misaligned


encoding, tags, misaligned = alignment([entity("Zanzibar", "city"), entity("friday morning", "date")])

# %% [markdown]
# The way back is `spans_from_tags`: tags and offsets to entities. Nothing may be lost on the round trip.

# %%
for found in spans_from_tags(tags, encoding.offsets):
    print(f"{found.label}: characters {found.start} to {found.end}, {text[found.start : found.end]!r}")

# %% [markdown]
# What if an annotation ends in the middle of a token? Here somebody marked "friday morn". The edge falls inside a
# token, so no tag is right for it. Tempting repairs are to shift the edge or to call the token `O`; both teach the
# model something nobody said. weebill takes the loss off all tokens of that entity and **writes down** what was lost;
# `finetune` returns the whole ledger.

# %%
_, _, misaligned = alignment([entity("Zanzibar", "city"), entity("friday morn", "date")])
for lost in misaligned:
    print(f"lost: {lost.entity.label} {text[lost.entity.start : lost.entity.end]!r}, {lost.reason}")

# %% [markdown]
# ## 3. Class imbalance
#
# Two things are unbalanced in such data. **Tags**: `O` is far more frequent than any other, and all entities share
# what is left. **Intents**: in real logs a few make up most of the traffic. The embedded data have as many utterances
# of every intent by construction, so for this section we thin them out: the second intent keeps half of its
# utterances, the third a third, and so on.

# %%
if massive:
    skewed = train
else:
    by_intent = {intent: [u for u in train if u.intent == intent] for intent in intents}
    skewed = [u for rank, rows in enumerate(by_intent.values()) for u in rows[: max(4, len(rows) // (rank + 1))]]
tag_names = tag_vocabulary(labels)
rows = label_rows(skewed, tokenizer, 128, intents, tag_names)
intent_counts = Counter(u.intent for u in skewed)
order = [intents.index(intent) for intent, _ in intent_counts.most_common()]
tag_counts = np.bincount([t for row in rows.tags for t in row if t != MISSING], minlength=len(tag_names))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
left.bar(range(len(order)), [intent_counts[intents[i]] for i in order], color="#999999")
left.set(xlabel="intents, most frequent first", ylabel="utterances", title="how often each intent occurs")
ranked = np.sort(tag_counts)[::-1]
right.bar(range(len(ranked)), np.maximum(ranked, 0.8), color="#999999")
right.set(xlabel="tags, most frequent first (the first one is O)", ylabel="tokens (log scale)", yscale="log")
right.set_title("how often each tag occurs")
plt.show()
print(f"of all tokens {100 * tag_counts[0] / tag_counts.sum():.0f} % are O")

# %% [markdown]
# For **intents** weebill changes how often a row is *drawn*: its chance is proportional to the frequency of its
# intent to the power of −p. With p = 0 every row is drawn alike, with p = 1 every intent. For **tags** that cannot
# work (a row brings its `O`s along), so there the *loss* of a tag is weighted, by the same formula. Both exponents
# are recipe keys, `loss.intent_sampling_power` and `loss.tag_weight_power`.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for power in (0.0, 0.5, 1.0):
    chances_N = sampling_weights(rows.intents, power)
    share = [100 * chances_N[rows.intents == i].sum() for i in order]
    left.plot(share, marker="o", markersize=3, label=f"p = {power}")
for power in (0.1, 0.5):
    weights_L = class_weights(rows.tags, len(tag_names), power)[np.argsort(-tag_counts)]
    right.plot(weights_L, marker="o", markersize=3, label=f"p = {power}")
left.set(xlabel="intents, most frequent first", ylabel="% of an epoch", title="what the sampler draws")
right.set(xlabel="tags, most frequent first", ylabel="weight in the loss", title="what a token of the tag counts")
left.legend(), right.legend()
plt.show()

# %% [markdown]
# What is it worth? That takes a model, and a model an encoder to start from. This one is pretrained for a few
# seconds, as in `Pretrain_SentenceTransformer.ipynb`, on paraphrases that the embedded grammar writes. Its words start
# beside their neighbours (`word_embeddings`), counted in those and in the training texts.

# %%
pretraining = load_recipe(
    "demo-pretrain",
    PretrainRecipe,
    [
        "encoder.pooling=mean",
        "training.embedding_learning_rate=2e-2",
        "word_embeddings=neighbours",
        "loss.positive_score=0.5",
        f"training.epochs={1 if SMALL else 3}",
        *(["encoder.num_layers=2"] if SMALL else []),
    ],
)
triplets = templates.paraphrase_triplets("train", 100 if SMALL else 1_600)
mix = Mix(pretraining)
mix.add_pairs(Source(path="embedded graded pairs"), templates.paraphrase_pairs("train", 60 if SMALL else 3_000))
mix.add_pairs(
    Source(path="embedded paraphrases"),
    [ScoredPair(anchor, other, score) for anchor, p, n in triplets for other, score in ((p, 1.0), (n, 0.0))],
)
texts = [*mix.texts, *(u.text for u in train)]
pairs = templates.paraphrase_pairs("dev", 300)
with capture_output():  # a progress bar
    encoder, end = pretrain(pretraining, mix, pairs, lambda event: None, tokenizer, texts=texts)
encoder.save(FOLDER / "pretrained")
START = f"start={FOLDER / 'pretrained'}"
print(f"pretrained for {end['steps']} steps; dev Spearman {100 * end['metrics']['spearman']:.1f}")

# %% [markdown]
# Two runs on the skewed data, the same but for the sampler, scored separately on the frequent half of the intents and
# the rare half. What the rare ones win, the frequent ones may pay for: every rare row drawn again is a frequent row
# not drawn. (One seed each. Weighting tags is a trade of the same kind, recall against precision;
# `docs/experiments.md` has a table of it, and why the default is as low as it is.)

# %%
SETTINGS = [
    f"training.epochs={2 if SMALL else 6}",
    f"training.evals={2 if SMALL else 6}",
    "training.patience=100",
    *(["encoder.num_layers=2"] if SMALL else []),
]


def run(rows, *overrides, tokenizer=tokenizer):
    """Fine-tune by the recipe with some keys changed; return a predictor, the model, and the events."""
    events = []
    recipe = load_recipe("demo-finetune", FinetuneRecipe, [*SETTINGS, *overrides])
    model, _, _ = finetune(recipe, rows, dev, events.append, tokenizer)
    config = model.encoder.config
    backend = TorchBackend(model)
    predictor = Predictor(
        tokenizer, backend, config.max_seq_len, config.embedding_dim, model.intents, model.tags, model.whole_words
    )
    return predictor, model, events


MANY = () if SMALL or massive else ("training.epochs=24",)  # there are few rows
frequent = {intents[i] for i in order[: len(order) // 2]}
table = Table("sampler", "intents right, frequent half", "rare half", title="accuracy on dev")
for power in (0.0, 1.0):
    predictor, _, _ = run(skewed, START, f"loss.intent_sampling_power={power}", *MANY)
    right = {True: [], False: []}
    for utterance, prediction in zip(dev, predictor.parse([u.text for u in dev], show_progress=False), strict=True):
        right[utterance.intent in frequent].append(utterance.intent == prediction.intent)
    table.add_row(f"p = {power}", *(f"{100 * np.mean(right[half]):.1f} %" for half in (True, False)))
show(table)

# %% [markdown]
# ## 4. Two heads on one encoder
#
# ```text
#                                  ┌─ state of [CLS] ─ dropout ─ linear ───────────▶ intent logits (B, C)
# tokens ─ encoder ─ token states ─┤
# (B, T)             (B, T, D)     └─ all states ─ BiLSTM ─ two linear per token ──▶ tag logits (B, T, L)
# ```
#
# B texts, T tokens, D hidden dimensions, C intents, L tags. The losses of the two heads are added, and both send
# their gradients into the encoder. It starts from the encoder pretrained above.

# %% [markdown]
# Now both tasks at once, with every part free to move. Four panels, from left to right:
#
# - the two **losses** in training, side by side: neither drowns the other;
# - what is measured on **dev**. Four of the lines are fractions of what is right (more = better); `tag_loss`, which
#   shares their axis, is in nats and falls. `exact_match`, intent and all entities right, is the one that chooses the
#   best weights (the dotted line), because it is what an application feels;
# - the **learning rate** of the top layer, after its warm-up;
# - how hard each loss pulls at the encoder that they share, as the length of its **gradient** there. Were one many
#   times the other, the encoder would be learning one task, whatever the losses read; `loss.intent_weight`,
#   `loss.tag_weight` or `loss.balance` would be the remedy.
#
# Twenty epochs, more than most runs here have, as this is the model that the rest of the notebook looks at. Exact match
# asks for everything at once and comes last: it still rises when the intents have long settled. `weebill demo` goes a
# little further, with twice the utterances.

# %%
LONGER = (f"training.epochs={2 if SMALL else 20}", f"training.evals={2 if SMALL else 10}")
predictor, model, events = run(train, START, *LONGER)
show(trainable(events[1]["table"], events[1]["fixed"]))
display(Image(training_curves(events), width=900))

# %% [markdown]
# ## 5. Freeze modes
#
# Must the encoder move at all? A part that is frozen keeps what pretraining gave it, cannot overfit, and costs no
# gradients; but it cannot learn what the task needs either. The keys under `[freezing]` of a recipe say what does not
# train: such a part has no gradient and no dropout, and its weights stay the same to the bit. Four modes, each for
# the same few epochs:
#
# - **heads alone**: the encoder is frozen, so its token states never change. With `cached_features` each text passes
#   it once, before training. (A text read anew each time could have other words masked each time; read once, it
#   cannot, so `token_dropout` must be 0.)
# - **upper layers**: the embeddings and the lower half of the layers are frozen, the rest learn the slower the deeper
#   they lie (`layer_decay`; section 6).
# - **gradual unfreezing** (Howard and Ruder 2018): the heads begin alone, since their first gradients are noise; then
#   the layers join from the top, one an epoch, and the embeddings last.
# - **everything** trains from the start.

# %%
LAYERS = 2 if SMALL else 4
MODES = {
    "heads alone": ["freezing.encoder=true", "freezing.cached_features=true", "loss.token_dropout=0"],
    "upper layers": [f"freezing.lower_layers={LAYERS // 2}", "training.layer_decay=0.8"],
    "gradual unfreezing": ["freezing.epochs_per_layer=1", "training.layer_decay=0.8"],
    "everything": [],
}
modes, seconds = {}, {}
for name, overrides in MODES.items():
    started = time.process_time()
    modes[name] = run(train, START, *overrides)[2]
    seconds[name] = time.process_time() - started

table = Table("part", *MODES, title="the epoch from which a part trains")
for part, _, _ in modes["everything"][1]["table"]:
    if part != "projection":  # no loss of this task reads it
        first = [found[1]["first_epochs"].get(part, 1) for found in modes.values()]
        table.add_row(part, *("frozen" if epoch is None else str(epoch) for epoch in first))
show(table)

figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for axes, metric in zip(panels, ("intent_accuracy", "span_f1"), strict=True):
    for (name, found), style in zip(modes.items(), (":", "-.", "--", "-"), strict=True):
        rows_shown = [event for event in found if event["event"] == "eval"]
        x, y = [row["step"] for row in rows_shown], [100 * row["metrics"][metric] for row in rows_shown]
        axes.plot(x, y, style, marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel=f"dev {metric.replace('_', ' ')} (%)")
    axes.grid(alpha=0.3)
panels[1].legend(fontsize=8)
plt.show()

METRICS = ("intent_accuracy", "span_f1", "exact_match")
table = Table("mode", "processor time", "intent", "span F1", "exact match", title="best dev scores")
for name, found in modes.items():
    best = found[-1]["metrics"]
    table.add_row(name, f"{seconds[name] / seconds['everything']:.2f} ×", *(f"{100 * best[m]:.1f}" for m in METRICS))
show(table)

# %% [markdown]
# Read it with the size of the pretraining in mind. After seconds of it, the encoder does not know enough to be left
# alone. Compare the two pictures, too: the tag head has a BiLSTM of its own and can make up for some of what the
# encoder lacks; the intent head is a single linear layer and cannot. (The heads alone also read their texts without
# token dropout, which in so short a run may favour them.) With an encoder that was pretrained on far more text than
# the task has, the order can turn round, above all when labelled rows are few. So compare; do not assume. `weebill
# compare-freezing` does that for a recipe and a start of yours.
#
# ### One head frozen
#
# A head can be frozen too: the intents are good and must stay so, while entities are learnt anew. The run below
# starts from the joint model of section 4. Its intent head is kept to the bit; the tag head has another width than the
# one there (`heads.lstm_dim`), so it starts from nothing, where one of the same width would go on from what it knows;
# and all of the encoder trains. The intent loss goes on holding the encoder to the frozen head; with
# `loss.intent_weight=0` only the tags move it, away from what the intent head reads. How far, the table says.

# %%
model.save(FOLDER / "joint")
FROZEN = (f"start={FOLDER / 'joint'}", "freezing.intent_head=true", "heads.lstm_dim=48", "metric=span_f1")
table = Table("run", "intent", "span F1", "exact match", title="dev scores; the frozen ones at their best span F1")
table.add_row("joint model", *(f"{100 * events[-1]['metrics'][m]:.1f}" for m in METRICS))
for name, weight in (("intent head frozen", 1), ("the same, without its loss", 0)):
    _, kept, found = run(train, *FROZEN, f"loss.intent_weight={weight}")
    assert torch.equal(kept.intent_head.linear.weight, model.intent_head.linear.weight)
    table.add_row(name, *(f"{100 * found[-1]['metrics'][m]:.1f}" for m in METRICS))
show(table)

# %% [markdown]
# In six epochs a new tag head comes to about where the joint model was after twenty, but do not thank the freezing for
# it: its encoder had been fine-tuned before it began. What the freezing and the loss do is in the column of the
# intents: a head that has not changed by a bit reads them worse when nothing holds the encoder to it.

# %% [markdown]
# ## 6. Discriminative learning rates
#
# Between frozen and free there is *slow*. Lower layers hold what is general (spelling, words), upper ones what is
# specific; so each layer below the top learns at `layer_decay` times the rate of the one above (Howard and Ruder
# 2018). The heads, which start from nothing, have a higher rate of their own, and so have the word embeddings: Adam
# moves every weight by about its learning rate per step, and these start large.
#
# In the right picture, on the embedded data, halving the rate from layer to layer ends some six points higher. A reason
# that fits: what the lower layers learnt from paraphrases is worth keeping, and six epochs are too few to learn it
# again. It is one seed, but an encoder pretrained on fewer pairs gained as much; and freezing the lower layers, the
# extreme of the same idea, lost in section 5. Slow was better than both fast and frozen.

# %%
_, _, slower_below = run(train, START, "training.layer_decay=0.5")
same_rate = modes["everything"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for name, found, marker in (("layer_decay = 1", same_rate, "o"), ("layer_decay = 0.5", slower_below, "s")):
    parts, _, rates = zip(*found[1]["table"], strict=True)
    left.scatter(rates, parts, marker=marker, label=name)
    rows_shown = [event for event in found if event["event"] == "eval"]
    x, y = [row["step"] for row in rows_shown], [100 * row["metrics"]["exact_match"] for row in rows_shown]
    right.plot(x, y, marker=marker, label=name)
left.set(xscale="log", xlabel="peak learning rate", title="how fast each part learns")
right.set(xlabel="step", ylabel="dev exact match (%)", title="what comes of it")
left.grid(alpha=0.3), right.grid(alpha=0.3)
right.legend()
plt.show()

# %% [markdown]
# ## 7. Separate metrics
#
# We go back to the model of section 4. One number cannot say how it is, since it does two things:
#
# - **intent accuracy**, and **macro-F1**, in which a rare intent counts as much as a frequent one;
# - **tag accuracy** counts tokens, an `O` as much as the edge of an entity. The more `O` there is in the data, the more
#   it flatters; calling every token `O` would be right as often as the last line below says. On the embedded data that
#   is about half, so this score does mean something; it still stands above span F1, since one wrong tag spoils a whole
#   entity and costs tag accuracy a single token;
# - **span F1** is strict: an entity is right when its start, end and label all are;
# - **exact match**: the intent and every entity of the utterance are right.
#
# The intervals say what other utterances of the same kind could have shown (bootstrap, 95 %). They do not say what
# another training seed would give.

# %%
show(scores(evaluate(predictor, dev, show_progress=False, with_intervals=True), "the joint model on dev"))
tags_of_train = [t for row in label_rows(train, tokenizer, 128, intents, tag_names).tags for t in row if t != MISSING]
always_outside = np.mean(np.array(tags_of_train) == 0)
print(f"tag accuracy of calling every token of the training data O: {100 * always_outside:.2f} %, at a span F1 of 0")

# %% [markdown]
# Span F1 by label shows where entities fail. Labels that share their values (a city one flies *from* and one flies
# *to*) can only be told apart by the words around them.

# %%
by_label = sorted(evaluate(predictor, dev, show_progress=False).by_label.items(), key=lambda item: item[1].f1)
by_label = [item for item in by_label if item[1].gold >= 3]
figure, axes = plt.subplots(figsize=(7.5, 0.8 + 0.2 * len(by_label)), layout="constrained")
axes.barh([f"{label} ({found.gold})" for label, found in by_label], [100 * found.f1 for _, found in by_label])
axes.set(xlabel="strict span F1 (%)", title="by label (how many there are on dev)", xlim=(0, 100))
axes.tick_params(axis="y", labelsize=8)
axes.margins(y=0.01)
plt.show()

# %% [markdown]
# ## 8. Reading the errors
#
# Scores say how many; errors say why. First the intents that are taken for one another:

# %%
predictions = predictor.parse([u.text for u in dev], show_progress=False)
confused = Counter((u.intent, p.intent) for u, p in zip(dev, predictions, strict=True) if u.intent != p.intent)
table = Table("should be", "was read as", "times", title="most frequent confusions")
for (gold, got), times in confused.most_common(6):
    table.add_row(gold, got, str(times))
show(table)

# %% [markdown]
# Then the entities, by what went wrong: `metrics.span_errors`, whose counts are the line "wrong spans" of the table
# above. A wrong span counts once, with the span that it was meant for if there is one. The kinds have different cures:
# a wrong *boundary* points at the annotation or the tokenizer, a wrong *label* at labels that are alike, *missed* and
# *spurious* (found where there is none) at too few examples of the phrasing.

# %%
kinds, examples = Counter(), {}
for utterance, prediction in zip(dev, predictions, strict=True):
    for error in span_errors(utterance.entities, prediction.entities):
        kinds[error.kind] += 1
        examples.setdefault(error.kind, (utterance.text, error))
for kind, times in kinds.most_common():
    text, error = examples[kind]
    should, read = (f"{text[e.start : e.end]!r} {e.label}" if e else "nothing" for e in (error.gold, error.predicted))
    print(f"{kind}, {times} times. {text!r}\n   should be {should}, was read {read}\n")

# %% [markdown]
# Does the model know when it is wrong? If wrong answers have low scores, an application can ask back below some
# score. The picture shows how well that would work here.

# %%
is_right = np.array([u.intent == p.intent for u, p in zip(dev, predictions, strict=True)])
score_N = np.array([p.score for p in predictions])
figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
axes.hist([score_N[is_right], score_N[~is_right]], bins=np.linspace(0, 1, 21), label=["right", "wrong"], stacked=True)
axes.set(xlabel="score of the intent that was read", ylabel="dev utterances")
axes.legend()
plt.show()

# %% [markdown]
# ## 9. Exporting and parsing
#
# Training needs torch; using the model does not. `export_onnx` writes the model as one ONNX graph, here with weights
# as 8-bit integers, and runs it beside the original on dev before it calls the export done: if scores fell by more
# than a hundredth, nothing would be written.

# %%
model.save(FOLDER / "model")
report = export_onnx(FOLDER / "model", FOLDER / "int8", dev, int8=True)
table = Table("looked at", "original", "exported", title=report.what)
for check in report.checks:
    if check.unit in ("fraction", "bytes"):
        form = "{:.2%}".format if check.unit == "fraction" else lambda size: f"{size / 1e6:.2f} MB"
        table.add_row(check.name, "" if check.original is None else form(check.original), form(check.exported))
show(table)
print("may be used:", report.ok)

# %% [markdown]
# `weebill.load` takes either folder. Called with a text it gives a `Prediction`: the intent with its probability, the
# entities with character offsets into *your* text, whatever the tokenizer did in between.

# %%
nlu = weebill.load(FOLDER / "int8")
for text in ("wake me up at nine am on friday", "turn the kitchen lights blue", "could you play some jazz"):
    show(coloured(nlu(text)))
print(json.dumps(nlu("wake me up at nine am on friday").to_json(), indent=1))

# %% [markdown]
# ## On the real data
#
# What the same cells gave with `WEEBILL_DATA` set, on 3,000 training utterances of MASSIVE (English) and 600 of its dev
# partition, in 177 seconds of processor time; recorded once, one seed, on one thread like all outputs here (on two,
# sums round otherwise and scores differ by a point or three):
#
# | | embedded | MASSIVE |
# |---|---|---|
# | intents | 22 | 60 |
# | tokens that are `O` | 48 % | 70 % |
# | rare half of the intents right, sampler p = 0 → 1 | 55.1 → 65.4 % | 40.5 → 67.2 % |
# | frequent half, p = 0 → 1 | 88.9 → 89.7 % | 74.2 → 65.1 % |
# | joint model: intent accuracy | 92.95 % | 73.17 % |
# | joint model: span F1 (strict) | 80.67 % | 41.41 % |
# | joint model: exact match (strict) | 64.76 % | 37.00 % |
# | intents with the head frozen, without its loss | 78.9 % | 17.0 % |
# | exact match after six epochs, `layer_decay` 1 → 0.5 | 42.7 → 48.4 % | 23.3 → 22.7 % |
# | most frequent error | spurious (90) | missed (209) |
#
# People are harder to read than a grammar. Some of what the embedded data show is clearer on MASSIVE: what rare intents
# win, frequent ones pay for. Some of it is gone: with an encoder pretrained on other texts than its own, there is
# little in the lower layers worth protecting. And a quarter of the training rows is not what MASSIVE needs: `weebill
# finetune massive`, from an encoder pretrained at full length, has the scores in the README.
#
# From here:
#
# - `weebill finetune joint --data-root data/mine --output runs/mine` trains on data of your own; `docs/data.md` says
#   how to check and split them first.
# - `weebill serve FOLDER` answers over HTTP, with a playground page; `docs/export.md` is about where the exported
#   model runs.
#
# Things to try here: `"heads.lstm_dim=16"`; `"loss.tag_weight_power=0.5"`, and look at precision and recall apart;
# leave `START` out; give the freeze modes a hundred training rows instead of all of them.
