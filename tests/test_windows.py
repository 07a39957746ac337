"""Long texts in windows: every token is read once with context around it, and no entity is lost at a seam."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weebill
from oracles.word_table import EMBEDDING_DIM, INTENTS, TAGS, expected_entities
from weebill import metrics, templates
from weebill.data import label_rows
from weebill.errors import ConfigError, DataError
from weebill.predictor import Predictor
from weebill.schema import Entity, ModelOutput, Utterance
from weebill.tags import MISSING, align, tag_vocabulary
from weebill.tokenizer import Tokenizer
from weebill.windows import Windows, owned_ranges, window_ranges

TOKENIZER = Tokenizer.packaged()
LENGTH = 18  # 16 between [CLS] and [SEP], so windows begin every 8 tokens
FILLER = "and so on we go to the old house by the sea "


class NearSighted:
    """Tags by the word table, but wrong within `blind` tokens of an edge of a window that is no edge of the text."""

    workers = 1

    def __init__(self, text, blind=3):
        self.text, self.blind, self.longest = text, blind, 0
        self.last = max(b for _, b in TOKENIZER.encode(text).offsets)

    def run(self, batch):
        self.longest = max(self.longest, batch.input_ids_BT.shape[1])
        rows, length = batch.input_ids_BT.shape
        tags = np.full((rows, length, len(TAGS)), -8, np.float32)
        for i, encoding in enumerate(batch.encodings):
            assert encoding.token_ids[0] == TOKENIZER.cls_id and encoding.token_ids[-1] == TOKENIZER.sep_id
            for t, (start, end) in enumerate(encoding.offsets):
                inside = [e for e in expected_entities(self.text) if e[0] <= start < end <= e[1]]
                tag = f"{'B' if inside[0][0] == start else 'I'}-{inside[0][2]}" if inside else "O"
                if (encoding.offsets[1][0] > 0 and t <= self.blind) or (
                    encoding.offsets[-2][1] < self.last and t >= len(encoding.offsets) - 1 - self.blind
                ):
                    tag = "B-genre"
                tags[i, t, TAGS.index(tag)] = 8
        intents = np.full((rows, len(INTENTS)), -8, np.float32)
        return ModelOutput(np.ones((rows, EMBEDDING_DIM), np.float32), intents, tags)


def near_sighted(text, **options):
    return Predictor(TOKENIZER, NearSighted(text), LENGTH, EMBEDDING_DIM, INTENTS, TAGS, **options)


@pytest.mark.parametrize("entity", ["nine am", "jazz", "🎵"])
@pytest.mark.parametrize("before", range(0, 40))
def test_an_entity_at_every_place_of_a_long_text_is_found_whole(entity, before):
    words = (FILLER * 6).split()
    text = " ".join([*words[:before], entity, *words[before:]])
    nlu = near_sighted(text)
    found = [(e.start, e.end, e.label) for e in nlu(text).entities]
    assert found == expected_entities(text) != []
    assert nlu.backend.longest == LENGTH  # it never saw more at once


def test_entities_at_every_seam_of_one_text():
    text = "play jazz at nine am and " * 12
    text = text.strip()
    found = [(e.start, e.end, e.label) for e in near_sighted(text)(text).entities]
    assert found == expected_entities(text) and len(found) == 24


@given(st.integers(0, 400), st.integers(1, 70))
def test_every_token_is_owned_once_with_context_around_it(num_tokens, capacity):
    windows = window_ranges(num_tokens, capacity)
    owned = owned_ranges(windows)
    assert [t for a, b in owned for t in range(a, b)] == list(range(num_tokens))
    for (a, b), (start, end) in zip(owned, windows, strict=True):
        assert start <= a <= b <= end and end - start == min(capacity, num_tokens)
        assert start == 0 or a - start >= capacity // 4
        assert end == num_tokens or end - b >= capacity // 4


@pytest.fixture(scope="module")
def nlu():
    return weebill.load()  # the model that comes along: ONNX, 64 tokens


def test_windows_say_nearly_what_one_pass_says(nlu):
    """The same weights with 24 and with 64 tokens at once, on texts that have about 50."""
    rows = [u.text for u in templates.generate(4_000)[1]]
    joined = [" and then ".join(rows[i : i + 4]) for i in range(0, len(rows), 4)]
    texts = [text for text in joined if 40 < len(TOKENIZER.encode(text).token_ids) <= 64]
    assert len(texts) >= 100  # of fifteen, chance decides
    scores = {}
    for policy in ("window", "truncate"):
        short = weebill.load(on_overflow=policy)
        short.max_seq_len = 24
        one_pass, got = ([p.entities for p in model.parse(texts)] for model in (nlu, short))
        scores[policy] = metrics.span_scores(one_pass, got).f1
    assert scores["window"] > 0.7 and scores["window"] > scores["truncate"] + 0.3


def test_long_and_short_texts_together_as_alone(nlu):
    texts = [u.text for u in templates.generate(40)[0]]
    texts[3:3] = ["play some jazz at nine " * 40]
    texts[9:9] = ["", "wake me up " * 25]
    together, vectors = nlu.parse(texts), nlu.embed(texts)
    for text, prediction, vector in zip(texts, together, vectors, strict=True):
        alone = nlu(text)
        assert (alone.text, alone.intent) == (prediction.text, prediction.intent) == (text, alone.intent)
        assert [(e.start, e.end, e.label) for e in alone.entities] == [
            (e.start, e.end, e.label) for e in prediction.entities
        ]
        assert np.abs(nlu.embed([text])[0] - vector).max() < 1e-4
    assert max(e.end for e in together[3].entities) > 800  # the end of the long text was read


def test_torch_reads_windows_as_onnx_does(tmp_path):
    import torch

    from weebill.config import EncoderConfig, HeadsConfig
    from weebill.export import export_onnx
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer

    torch.manual_seed(0)
    shape = EncoderConfig(num_layers=1, hidden_dim=16, num_heads=2, max_seq_len=16)
    tags = tag_vocabulary(["a", "b"])
    MultiTaskModel(SentenceTransformer(shape, TOKENIZER), ["x", "y"], tags, HeadsConfig()).save(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "onnx", templates.generate(40)[1])
    texts = ["short", "play some jazz at nine in the old house " * 9]
    a, b = weebill.load(tmp_path / "model", "torch"), weebill.load(tmp_path / "onnx", "onnx")
    for one, two in zip(a.parse(texts), b.parse(texts), strict=True):
        spans = [[(e.start, e.end, e.label) for e in p.entities] for p in (one, two)]
        assert one.intent == two.intent and spans[0] == spans[1]
    assert np.abs(a.embed(texts) - b.embed(texts)).max() < 1e-4


def test_an_embedding_is_the_mean_of_its_windows_and_the_intent_the_surest_ones():
    windows = Windows(TOKENIZER, FILLER * 4, LENGTH)
    weights = np.array([b - a for a, b in windows.owned]) / sum(b - a for a, b in windows.owned)
    rng = np.random.default_rng(0)
    count = len(windows.ranges)
    vectors, intents = rng.normal(size=(count, 4)), np.tile([0.0, 1.0, 0.5], (count, 1))
    intents[2] = [3.0, -1.0, 0.0]
    tags = rng.normal(size=(count, LENGTH, 3))
    outputs = [ModelOutput(v[None], i[None], t[None]) for v, i, t in zip(vectors, intents, tags, strict=True)]
    merged = windows.merge(outputs)
    assert np.allclose(merged.sentence_embedding_BD[0], weights @ vectors, atol=1e-6)
    assert merged.intent_logits_BC[0].tolist() == [3.0, -1.0, 0.0]
    assert merged.tag_logits_BTL.shape == (1, len(windows.whole.token_ids), 3)
    (start, _), (a, b) = windows.ranges[1], windows.owned[1]
    assert np.array_equal(merged.tag_logits_BTL[0, 1 + a : 1 + b], tags[1, 1 + a - start : 1 + b - start])


def test_truncating_reads_the_beginning_alone_and_error_names_the_text(caplog):
    texts = ["play jazz", "play jazz " + FILLER * 3 + "nine am"]
    cut = near_sighted(texts[1], on_overflow="truncate")
    assert [e.label for e in cut.parse(texts)[1].entities][:1] == ["genre"]
    assert max(e.end for e in cut.parse(texts)[1].entities) < 90
    assert "1 of 2 texts are longer than the model's 18 tokens; what is beyond was not read" in caplog.text
    with pytest.raises(DataError, match=r"text 2 of 2: expected at most 18 tokens, got \d+ in 'play jazz and so"):
        near_sighted(texts[1], on_overflow="error").parse(texts)
    with pytest.raises(ConfigError, match="on_overflow: expected one of window, truncate, error, got 'wrap'"):
        near_sighted(texts[1], on_overflow="wrap")


def test_truncated_embeddings_are_those_of_the_first_window(nlu):
    text = "play some jazz at nine " * 40
    first = Windows(nlu.tokenizer, text, nlu.max_seq_len).encodings()[0]
    assert first.token_ids == nlu.tokenizer.encode(text, nlu.max_seq_len).token_ids
    cut = weebill.load(on_overflow="truncate").embed([text])[0]
    output = next(Windows(nlu.tokenizer, text, nlu.max_seq_len).batches(1))
    assert np.allclose(cut, nlu.backend.run(output).sentence_embedding_BD[0], atol=1e-5)
    assert not np.allclose(cut, nlu.embed([text])[0], atol=1e-2)


def test_training_rows_of_a_long_text_carry_every_entity_whole():
    text = "play jazz at nine am and " * 12
    gold = tuple(Entity(*span) for span in expected_entities(text.strip()))
    rows = [Utterance("nine am", "other", (Entity(0, 7, "time"),)), Utterance(text.strip(), "play_music", gold)]
    found = label_rows(rows, TOKENIZER, LENGTH, INTENTS, TAGS, "window")
    count = len(Windows(TOKENIZER, text.strip(), LENGTH).ranges)
    assert len(found.token_ids) == len(found.tags) == len(found.intents) == 1 + count > 6
    assert found.intents.tolist() == [2] + [0] * count and found.misaligned == found.shortened == []
    assert max(map(len, found.token_ids)) == LENGTH
    ids = {tag: i for i, tag in enumerate(TAGS)}
    whole, _ = align(gold, TOKENIZER.encode(text.strip()), ids)
    for (a, b), tags in zip(Windows(TOKENIZER, text.strip(), LENGTH).ranges, found.tags[1:], strict=True):
        expected = whole[1 + a : 1 + b]
        for got, want in zip(tags[1:-1], expected, strict=True):
            assert got in (want, MISSING)  # never another label, never "O" for a part of an entity
    begins = sum(tags.count(ids["B-time"]) + tags.count(ids["B-genre"]) for tags in found.tags[1:])
    assert begins >= len(gold)


def test_what_no_window_holds_is_lost_with_a_reason_and_a_cut_text_is_listed():
    text = ("long " * 40).strip()
    rows = [Utterance(text, "other", (Entity(0, len(text), "time"),), source="data.jsonl:7")]
    lost = label_rows(rows, TOKENIZER, LENGTH, INTENTS, TAGS, "window").misaligned
    assert [one.reason for _, one in lost] == ["longer than the model reads at once"]
    cut = label_rows(rows, TOKENIZER, LENGTH, INTENTS, TAGS, "truncate")
    assert len(cut.token_ids) == 1 and [dropped for _, dropped in cut.shortened] == [40 - 16]
    assert [one.reason for _, one in cut.misaligned] == ["truncated: beyond the model's max_seq_len"]
    with pytest.raises(
        DataError, match=r"at most 18 tokens, as on_overflow = error asks, got 1 longer ones: data.jsonl:7"
    ):
        label_rows(rows, TOKENIZER, LENGTH, INTENTS, TAGS, "error")
