"""The merging: by hand, against the slow twin, and against Hugging Face's trainer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import bpe as slow
from weebill import bpe, templates
from weebill.errors import ConfigError
from weebill.merge_table import NOTHING, MergeTable
from weebill.tokenizer import Tokenizer


def _counts(texts, pattern="gpt2"):
    counts = {}
    for text in texts:
        for pretoken in bpe.pretokenize(text, pattern):
            counts[pretoken] = counts.get(pretoken, 0) + 1
    return counts


def test_merges_by_hand():
    # "low" ×5, "lower" ×2, "new" ×3: l-o and o-w occur 7 times each, and l < o puts l-o first; then lo-w, 7 times;
    # then n-e and e-w tie at 3, and e < n puts e-w first
    letters = {c: bpe.BYTE_SYMBOLS[ord(c)] for c in "lowern"}
    merges = bpe.learn_merges({"low": 5, "lower": 2, "new": 3}, 256 + 3)
    assert list(merges) == [(letters["l"], letters["o"]), (256, letters["w"]), (letters["e"], letters["w"])]
    assert list(merges.values()) == [256, 257, 258]


def test_byte_symbols_follow_gpt2():
    assert bpe.BYTE_CHARACTERS[ord(" ")] == "Ġ" and bpe.BYTE_CHARACTERS[ord("\n")] == "Ċ"
    assert [bpe.SYMBOL_BYTES[bpe.BYTE_SYMBOLS[b]] for b in range(256)] == list(range(256))
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(ByteLevel.alphabet()) == [bpe.BYTE_CHARACTERS[b] for b in bpe.SYMBOL_BYTES]


@given(st.text(st.characters(max_codepoint=127)) | st.text("a1'sSlLvVerR., \n\r\t\x1c"))
@settings(max_examples=500, deadline=None)
def test_ascii_is_split_as_the_pattern_says(text):
    for pattern in bpe.SPLIT_PATTERNS:
        assert bpe.pretokenize(text, pattern) == bpe.compile_pattern(pattern).findall(text)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_pretokens_joined_give_the_text(text):
    for pattern in ("gpt2", "gpt4", "[aeiou]+", "x*"):
        pieces = bpe.pretokenize(text, pattern)
        assert "".join(pieces) == text and all(pieces)


def test_a_bad_pattern_is_named():
    with pytest.raises(ConfigError, match=r"expected gpt2, gpt4 or a regular expression, got '\(a'"):
        bpe.pretokenize("a", "(a")


@given(st.dictionaries(st.text(alphabet="aab é", min_size=1, max_size=9), st.integers(1, 5), max_size=30))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_learning_equals_the_slow_twin(counts):
    assert list(bpe.learn_merges(counts, 300).items()) == list(slow.learn_merges(counts, 300).items())


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_learning_equals_hugging_face(pattern):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = [u.text.title() + " 1234!\n" for u in templates.generate()[0][:1500]]
    peer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(bpe.SPLIT_PATTERNS[pattern]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    )
    merges = bpe.learn_merges(_counts(texts, pattern), 1500)
    values = [bytes([b]) for b in bpe.SYMBOL_BYTES]
    for (a, b), merged in merges.items():
        if merged == len(values):
            values.append(values[a] + values[b])
    names = {"".join(bpe.BYTE_CHARACTERS[b] for b in value): i for i, value in enumerate(values)}
    assert names == peer.get_vocab()


def test_min_frequency_ends_learning():
    merges = bpe.learn_merges({"ab": 5, "cd": 2}, 300, min_frequency=3)
    assert len(merges) == 1


@given(st.text(alphabet="abcd é", max_size=40))
@settings(max_examples=200, deadline=None)
def test_applying_equals_the_slow_twin(text):
    ranks = bpe.merge_ranks(bpe.learn_merges({"abcd": 4, "abab": 3, "bcd": 2, "dé": 3, "aaaa": 5}, 275))
    symbols = bpe.symbols_of(text)
    assert bpe.apply_merges(symbols, ranks) == slow.apply_merges(symbols, ranks)


@given(st.lists(st.text(alphabet="abcd é", max_size=12), max_size=8), st.integers(260, 280))
@settings(max_examples=200, deadline=None)
def test_applying_to_all_equals_one_by_one(words, size):
    ranks = bpe.merge_ranks(bpe.learn_merges({"abcd": 4, "abab": 3, "bcd": 2, "dé": 3, "aaaa": 5}, size))
    found = bpe.apply_merges_to_all(words, ranks, bpe.BYTE_SYMBOLS)
    assert found == {word: slow.apply_merges(bpe.symbols_of(word), ranks) for word in words}


def test_applying_to_all_keeps_to_ranks_that_no_training_gives():
    # "ab" ranks after "abc" although it makes its first half: merging all "ab" before any "abc" would be wrong
    a, b, c = bpe.symbols_of("abc")
    ranks = {(256, c): (0, 257), (a, b): (1, 256), (257, a): (2, 258), (c, a): (3, 259)}
    for word in ("abcab", "abcabc", "cabcaab", "ababc" * 5):
        assert bpe.apply_merges_to_all([word], ranks, bpe.BYTE_SYMBOLS)[word] == slow.apply_merges(
            bpe.symbols_of(word), ranks
        )


def _apply_to_words(table, words):
    bytes_N = np.frombuffer("".join(words).encode(), np.uint8)
    starts_N = np.zeros(len(bytes_N), bool)
    starts_N[np.cumsum([0, *(len(word.encode()) for word in words[:-1])])] = True
    return table.apply(bytes_N, starts_N, starts_N)


@given(st.lists(st.text(alphabet="abcd é", min_size=1, max_size=12), min_size=1, max_size=8), st.integers(256, 280))
@settings(max_examples=200, deadline=None)
def test_a_merge_table_equals_the_slow_twin(words, size):
    ranks = bpe.merge_ranks(bpe.learn_merges({"abcd": 4, "abab": 3, "bcd": 2, "dé": 3, "aaaa": 5}, size))
    found = _apply_to_words(MergeTable(ranks, bpe.BYTE_SYMBOLS), words)
    assert [np.frombuffer(packed, np.int32).tolist() for packed in found] == [
        slow.apply_merges(bpe.symbols_of(word), ranks) for word in words
    ]


@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.text("abcd", min_size=1, max_size=10), min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_merge_table_keeps_to_ranks_that_no_training_gives(choices, words):
    # pairs of any two symbols in any order: a pair may rank before its own parts, and several may give the same symbol
    symbols = [*bpe.symbols_of("abcd"), *range(256, 266)]
    pairs = dict.fromkeys((symbols[c % 14], symbols[(c * 7 + i) % 14]) for i, c in enumerate(choices))
    ranks = {pair: (rank, 256 + rank % 10) for rank, pair in enumerate(pairs)}
    found = _apply_to_words(MergeTable(ranks, bpe.BYTE_SYMBOLS), words)
    assert [np.frombuffer(packed, np.int32).tolist() for packed in found] == [
        slow.apply_merges(bpe.symbols_of(word), ranks) for word in words
    ]


def test_a_merge_table_finds_every_pair_and_no_other():
    merges = Tokenizer.packaged().merges
    table = MergeTable(bpe.merge_ranks(merges), range(256))
    firsts, seconds = np.array([*merges]).T
    assert table._ranks_of(firsts, seconds).tolist() == list(range(len(merges)))
    others = [(a, b) for a, b in zip(firsts.tolist(), seconds[::-1].tolist(), strict=True) if (a, b) not in merges]
    assert len(others) > 4_000 and set(table._ranks_of(*np.array(others).T).tolist()) == {NOTHING}


@pytest.mark.parametrize(
    "rows", [{a: range(300) for a in range(300)}, {a: range(a, 50_000, 49 + a % 5) for a in range(30)}, {7: [7]}, {}]
)
def test_a_merge_table_has_room_for_any_pairs(rows):
    pairs = [(first, second) for first, row in rows.items() for second in row]
    table = MergeTable({pair: (rank, 300) for rank, pair in enumerate(pairs)}, range(256))
    found = table._ranks_of(*np.array(pairs, np.int64).reshape(-1, 2).T)
    assert found.tolist() == list(range(len(pairs))) and len(table._first_and_rank) < 4_000_000


def test_dropout_puts_merges_off():
    symbols, ranks = bpe.symbols_of("abab"), bpe.merge_ranks(bpe.learn_merges({"abab": 3}, 258))
    assert bpe.apply_merges(symbols, ranks, lambda: False) == symbols
    assert bpe.apply_merges(symbols, ranks, lambda: True) == bpe.apply_merges(symbols, ranks)
    answers = iter([False, True, True, True])  # the first a-b is put off, the second merged, then the first again
    assert bpe.apply_merges(symbols, ranks, lambda: next(answers)) == bpe.apply_merges(symbols, ranks)


def test_one_long_word_is_not_quadratic():
    ranks = bpe.merge_ranks(bpe.learn_merges({"a" * 64: 1}, 262))
    assert len(bpe.apply_merges(bpe.symbols_of("a" * 200_000), ranks)) == 200_000 // 64
