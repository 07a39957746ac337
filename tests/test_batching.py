"""Texts of many callers share forward passes, and everybody gets his own."""

import asyncio

import numpy as np
import pytest

from oracles.word_table import expected_entities, word_table_predictor
from weebill.batching import MAX_BATCH_TEXTS, Batcher, Overloaded, read_texts

WORDS = ["wake me at nine am", "play jazz", "what is", "play some jazz at nine", "🎵 am I", "nine am"]


def texts_of(count, start=0):
    return [f"{WORDS[i % len(WORDS)]} {i}" for i in range(start, start + count)]


@pytest.fixture
def batcher():
    made = Batcher(word_table_predictor(), max_waiting_texts=1000)
    yield made
    made.close()


def assert_readings_are_of(texts, readings, predictor):
    expected = predictor.embed(texts)
    for text, reading, embedding_D in zip(texts, readings, expected, strict=True):
        assert np.array_equal(reading.embedding_D, embedding_D)
        if reading.prediction is not None:
            assert reading.prediction.text == text
            found = [(e.start, e.end, e.label) for e in reading.prediction.entities]
            assert found == expected_entities(text)
            assert reading.prediction.intent == predictor.intents[reading.intent_scores_C.argmax()]
            assert reading.intent_scores_C.sum() == pytest.approx(1)


def test_every_caller_gets_the_readings_of_his_texts(batcher):
    sizes = [1, 1, 3, 70, 1, 200, 2, 1] * 4
    requests = [texts_of(size, 1000 * i) for i, size in enumerate(sizes)]
    batcher.max_waiting_texts = sum(sizes)

    async def ask_all():
        return await asyncio.gather(*(batcher.read(r, labels=i % 2 == 0) for i, r in enumerate(requests)))

    for texts, readings in zip(requests, asyncio.run(ask_all()), strict=True):
        assert_readings_are_of(texts, readings, word_table_predictor())
    assert batcher.waiting_texts == 0


def test_labels_only_where_asked_for():
    readings = read_texts(word_table_predictor(), ["play jazz"], labels=False)
    assert readings[0].prediction is None and readings[0].intent_scores_C is None


def test_callers_share_passes():
    sizes = []
    batcher = Batcher(word_table_predictor(), 1000, lambda num_texts, seconds: sizes.append(num_texts))

    async def ask_all():
        await asyncio.gather(*(batcher.read([text]) for text in texts_of(2 * MAX_BATCH_TEXTS + 1)))

    asyncio.run(ask_all())
    batcher.close()
    assert sizes == [MAX_BATCH_TEXTS, MAX_BATCH_TEXTS, 1]


def test_a_long_text_counts_as_its_windows():
    sizes = []
    batcher = Batcher(word_table_predictor(), 1000, lambda num_texts, seconds: sizes.append(num_texts))
    long = "play jazz at nine am " * 40  # 840 characters, 64 a window and its half: 14

    async def ask_all():
        await asyncio.gather(batcher.read([long] * 12), batcher.read(["play jazz"]))

    asyncio.run(ask_all())
    batcher.close()
    assert sizes == [5, 6, 2]


def test_callers_who_want_the_beginning_alone_get_it_whoever_asks_beside_them(batcher):
    long = "play jazz at nine am " * 9

    async def ask_all():
        wishes = ["window", "truncate", "truncate", "window"]
        return await asyncio.gather(*(batcher.read([long, "hi"], on_overflow=wish) for wish in wishes))

    answers = asyncio.run(ask_all())
    dropped = [readings[0].encoding.dropped_tokens for readings in answers]
    assert dropped[0] == dropped[3] == 0 < dropped[1] == dropped[2]
    assert all(readings[1].encoding.dropped_tokens == 0 for readings in answers)
    assert not np.allclose(answers[0][0].embedding_D, answers[1][0].embedding_D)


def test_a_large_request_holds_others_up_by_one_pass(batcher):
    order = []

    async def ask(name, texts):
        await batcher.read(texts)
        order.append((name, batcher.predictor.backend.passes))

    async def ask_both():
        large = asyncio.create_task(ask("large", texts_of(10 * MAX_BATCH_TEXTS)))
        await asyncio.sleep(0)
        await asyncio.gather(large, ask("small", ["play jazz"]))

    asyncio.run(ask_both())
    assert order == [("small", 2), ("large", 11)]


def test_what_is_too_much_is_refused_and_the_rest_answered(batcher):
    batcher.max_waiting_texts = 10

    async def ask_all():
        return await asyncio.gather(*(batcher.read(texts_of(4)) for _ in range(4)), return_exceptions=True)

    answers = asyncio.run(ask_all())
    assert [isinstance(a, Overloaded) for a in answers] == [False, False, True, True]
    assert str(answers[2]) == "expected at most 10 texts to wait, got 4 while 8 wait already; try again in a moment"
    assert batcher.waiting_texts == 0
    assert len(asyncio.run(batcher.read(texts_of(4)))) == 4


def test_a_request_fails_only_by_its_own_texts(batcher):
    run = batcher.predictor.backend.run

    def fails_on_poison(batch):
        if any("poison" in batcher.predictor.tokenizer.decode(e.token_ids) for e in batch.encodings):
            raise RuntimeError("a kernel fell over")
        return run(batch)

    batcher.predictor.backend.run = fails_on_poison
    requests = [["play jazz"], ["poison"], ["nine am"], [*texts_of(70), "poison"]]

    async def ask_all():
        return await asyncio.gather(*map(batcher.read, requests), return_exceptions=True)

    good, bad, also_good, large = asyncio.run(ask_all())
    assert isinstance(bad, RuntimeError) and isinstance(large, RuntimeError)
    assert_readings_are_of(["play jazz"], good, word_table_predictor())
    assert_readings_are_of(["nine am"], also_good, word_table_predictor())
    assert batcher.waiting_texts == 0
    assert len(asyncio.run(batcher.read(["play jazz"]))) == 1


def test_nobody_waits_for_a_thread_that_cannot_start(batcher, monkeypatch):
    def fails(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("weebill.batching.ThreadPoolExecutor.submit", fails)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            asyncio.run(asyncio.wait_for(batcher.read(["play jazz"]), 10))
    assert batcher.waiting_texts == 0 and len(asyncio.run(batcher.read(["play jazz"]))) == 1


def test_who_goes_away_gives_up_his_place(batcher):
    async def ask_and_leave():
        leaving = asyncio.create_task(batcher.read(texts_of(500)))
        staying = asyncio.create_task(batcher.read(["play jazz"]))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting_texts <= 1
        return await staying

    assert_readings_are_of(["play jazz"], asyncio.run(ask_and_leave()), word_table_predictor())
    assert batcher.waiting_texts == 0 and batcher.predictor.backend.passes <= 2
