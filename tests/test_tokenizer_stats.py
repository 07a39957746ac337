"""Statistics by hand, pieces that join to the text, and the pictures."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.pictures import pieces_html, pieces_text, plot_size_curve
from weebill.schema import Entity, Utterance
from weebill.tokenizer import Tokenizer
from weebill.tokenizer_stats import readable_pieces, size_curve, tokenizer_stats

PACKAGED = Tokenizer.packaged()


def test_stats_by_hand():
    tokenizer = Tokenizer.train(["aaaa b"] * 3, 263)  # merges a-a, space-b, aa-aa
    rows = [
        Utterance("aaaa b", entities=(Entity(0, 4, "x"), Entity(5, 6, "y"))),
        Utterance("aab", entities=(Entity(0, 3, "x"),)),
    ]
    stats = tokenizer_stats(tokenizer, (u.text for u in rows), rows)
    # "aaaa" is one token, " b" two, "aa" one, "b" one
    assert (stats.texts, stats.bytes, stats.words, stats.tokens) == (2, 9, 3, 4)
    assert (stats.bytes_per_token, stats.tokens_per_word) == (9 / 4, 4 / 3)
    assert len(stats.unused_ids) == 259 - 4 and stats.rarest_ids[0][2] == 1
    assert [(row.label, row.values, row.tokens_per_value) for row in stats.labels] == [("x", 2, 1.5), ("y", 1, 1.0)]
    assert stats.labels[0].examples[0] == ("aa", "b")
    with pytest.raises(DataError, match="expected texts to count tokens in, got none"):
        tokenizer_stats(tokenizer, [])


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_readable_pieces_join_to_text_and_ids(text):
    pieces = readable_pieces(PACKAGED, text)
    assert "".join(piece for piece, _ in pieces) == text
    assert [i for _, ids in pieces for i in ids] == PACKAGED.encode_ordinary(text)
    assert pieces_text(pieces).plain == text.translate({7: "", 8: "", 11: "", 12: "", 13: ""})  # rich drops controls


def test_page_escapes_what_it_shows():
    page = pieces_html("<b>", [readable_pieces(PACKAGED, "<script>alert(1)</script>")])
    assert (
        "<script" not in page
        and "&lt;" in page
        and page.count("<mark") == len(PACKAGED.pieces("<script>alert(1)</script>"))
    )


def test_curve_is_that_of_tokenizers_trained_at_each_size(tmp_path):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdef", k=rng.randint(2, 7))) for _ in range(80)]
    texts = [" ".join(rng.choices(words, k=12)) for _ in range(200)]
    curve = size_curve(Tokenizer.train(texts, 420), texts, points=4)
    for size, value in curve:
        trained = Tokenizer.train(texts, size)
        assert value == sum(map(len, texts)) / sum(len(trained.encode_ordinary(t)) for t in texts)
    plot_size_curve(curve, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArtifactError, match=r"expected a picture named \.png"):
        plot_size_curve(curve, tmp_path / "curve.xyz")


def test_cut_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="expected 260 to 8192 to cut from, got 9000"):
        PACKAGED.cut(9000)
    assert PACKAGED.cut(1000).vocab_size == 1000
    assert PACKAGED.cut(8192).merges == PACKAGED.merges
