"""Counting pretokens: cutting at spaces first, several processes and normalisation change no count."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weebill import counting, templates
from weebill.bpe import pretokenize
from weebill.counting import PretokenCounter, count_pretokens

SPACED = st.text(alphabet=st.sampled_from("ab1.,'  \n\t\r\u00a0é"), max_size=30)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", r"\w+|\s"])
@given(text=SPACED)
@example(text="a   b")
@example(text="a\n \nb")
@example(text="  ")
@example(text="12 34\t 5 \r\n")
@settings(max_examples=300, deadline=None)
def test_cutting_at_spaces_changes_no_pretoken(pattern, text):
    counter = PretokenCounter(pattern)
    counter.add(text)
    assert counter.total() == Counter(pretokenize(text, pattern))


def test_several_processes_count_the_same(monkeypatch):
    monkeypatch.setattr(counting, "BLOCK_CHARACTERS", 3_000)
    texts = [u.text + "\n" for u in templates.generate()[0][:1500]] + ["a\ud800 b", "É"]
    one, two = (count_pretokens(iter(texts), "gpt2", ("lowercase",), processes) for processes in (1, 2))
    assert one == two and one["é"] == 1 and one["a\ufffd"] == 0 and one["\ufffd"] == 1
    assert one.total() == sum(len(pretokenize(t.replace("\ud800", "\ufffd").lower())) for t in texts)


def test_distinct_chunks_are_not_kept(monkeypatch):
    monkeypatch.setattr(counting, "MANY_CHUNKS", 100)
    counter = PretokenCounter("gpt2")
    texts = [f"same, same! {i % 7}? {'.' * (i % 50)}same{i % 13}," for i in range(1_000)]
    for text in texts:
        counter.add(text)
        assert len(counter._chunks) <= 104
    assert counter.total() == Counter(pretoken for text in texts for pretoken in pretokenize(text))
