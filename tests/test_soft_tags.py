"""Tag distributions go from any tokenization to any other with their B- and I- right: by hand, and against `align`."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weebill import templates
from weebill.decoding import TagGrammar
from weebill.encodings import Encoding
from weebill.hf_tokenizer import load_tokenizer
from weebill.schema import Entity
from weebill.soft_tags import NO_WORD, log_softmax, token_log_probs, word_log_probs, word_spans, words_begun_in
from weebill.tags import MISSING, align, is_inside_word, spans_from_tags, tag_vocabulary
from weebill.tokenizer import Tokenizer

TAGS = ["O", "B-a", "I-a", "B-b", "I-b"]
GRAMMAR = TagGrammar(TAGS)


def _logs(*rows):
    return np.log(np.array(rows))


def _words(text, pieces, rows):
    """The distribution of each word, of a teacher that cuts `text` into `pieces` and says `rows` of them."""
    offsets, at = [], 0
    for piece in pieces:
        at = text.index(piece, at)
        offsets.append((at, at + len(piece)))
        at += len(piece)
    return np.exp(word_log_probs(_logs(*rows), offsets, word_spans(text), GRAMMAR))


def test_a_word_of_one_token_keeps_its_distribution():
    row = [0.5, 0.2, 0.1, 0.15, 0.05]
    assert _words("nine am", ["nine", "am"], [row, row[::-1]]) == pytest.approx(np.array([row, row[::-1]]))


def test_later_tokens_of_a_word_speak_for_its_beginning_too():
    # "n" B-a 0.6, "ine" I-a 0.7: as B-a sqrt(0.6 * 0.7), as I-a sqrt(0.1 * 0.7); B-a of "ine" means nothing
    got = _words("nine", ["n", "ine"], [[0.2, 0.6, 0.1, 0.05, 0.05], [0.1, 0.1, 0.7, 0.05, 0.05]])[0]
    scores = np.sqrt([0.2 * 0.1, 0.6 * 0.7, 0.1 * 0.7, 0.05 * 0.05, 0.05 * 0.05])
    assert got == pytest.approx(scores / scores.sum())


def test_the_example_of_the_documentation():
    grammar, words = TagGrammar(["O", "B-time", "I-time"]), [(0, 4)]
    word = word_log_probs(_logs([0.2, 0.6, 0.2], [0.1, 0.2, 0.7]), [(0, 1), (1, 4)], words, grammar)
    begun, later = words_begun_in([(0, 2), (2, 4)], words)
    got = np.exp(token_log_probs(word[begun], np.array(later), grammar))
    assert got.round(3).tolist() == [[0.122, 0.557, 0.322], [0.122, 0.0, 0.878]]


def test_a_word_in_many_pieces_is_no_surer_than_one():
    row = [0.3, 0.4, 0.1, 0.1, 0.1]
    inner = [0.3, 0.1, 0.4, 0.1, 0.1]
    many = _words("ninety", ["n", "ine", "t", "y"], [row, inner, inner, inner])[0]
    assert many.argmax() == 1 and many[1] < 0.55


def test_a_token_over_two_words_begins_an_entity_in_the_first_alone():
    got = _words("don't", ["don", "'t"], [[1 - 4e-9, 1e-9, 1e-9, 1e-9, 1e-9], [0.1, 0.6, 0.1, 0.15, 0.05]])
    assert got[1] == pytest.approx([0.1, 0.6, 0.1, 0.15, 0.05])  # the apostrophe
    assert got[2] == pytest.approx([0.1, 0.0, 0.7, 0.0, 0.2])  # the t


def test_a_students_later_token_goes_on_with_what_its_word_begins():
    word = _logs([0.1, 0.6, 0.1, 0.15, 0.05])
    begun, later = words_begun_in([(0, 0), (0, 1), (1, 4)], [(0, 4)])
    assert (begun, later) == ([NO_WORD, 0, 0], [False, False, True])
    got = np.exp(token_log_probs(word[[0, 0]], np.array([False, True]), GRAMMAR))
    assert got == pytest.approx(np.array([[0.1, 0.6, 0.1, 0.15, 0.05], [0.1, 0.0, 0.7, 0.0, 0.2]]))


def test_pieces_of_one_character_count_once_and_truncated_words_are_missing():
    text, row = "🐦 ok", [0.2, 0.5, 0.1, 0.1, 0.1]
    offsets = [(0, 0), (0, 1), (0, 1), (0, 0)]  # two bytes of the bird; the rest was cut off
    got = word_log_probs(_logs(row, row, row[::-1], row), offsets, word_spans(text), GRAMMAR)
    assert np.exp(got[0]) == pytest.approx(row)
    assert np.isnan(got[1]).all()


@given(st.text(alphabet="aé\u0301 9_.'-日🐦\t", max_size=12))
def test_words_end_where_entities_may(text):
    words = word_spans(text)
    edges = {0, len(text)} | {at for at in range(len(text)) if not is_inside_word(text, at)}
    assert {at for word in words for at in word} <= edges
    assert [text[a:b] for a, b in words] == [w for w in _cut(text, sorted(edges)) if w.strip()]
    assert "".join(text[a:b] for a, b in word_spans(text, whole_words=False)) == "".join(text.split())


def _cut(text, edges):
    return [text[a:b] for a, b in pairwise(edges)]


@pytest.fixture(scope="module")
def tokenizers(bert_folder):
    texts = [u.text for u in templates.generate()[0]]
    small = Tokenizer.train(texts, 300)  # words in many pieces
    return {"small": small, "packaged": Tokenizer.packaged(), "bert": load_tokenizer(bert_folder)}


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("teacher", ["small", "packaged", "bert"])
@pytest.mark.parametrize("student", ["small", "packaged", "bert"])
def test_a_sure_teachers_tags_become_the_students_own(tokenizers, teacher, student, whole_words):
    """Where teacher and student can both carry an entity, the student is taught exactly its gold tags."""
    rows = templates.generate()[0][::70]
    tags = tag_vocabulary({e.label for u in rows for e in u.entities})
    grammar, tag_ids, compared = TagGrammar(tags), {tag: i for i, tag in enumerate(tags)}, 0
    for utterance in rows:
        theirs, ours = (tokenizers[name].encode(utterance.text) for name in (teacher, student))
        gold, lost = align(utterance.entities, theirs, tag_ids)
        wanted, lost_here = align(utterance.entities, ours, tag_ids)
        assert lost == lost_here == []
        logits = np.zeros((len(gold), len(tags)))
        logits[np.arange(len(gold)), [3 if tag == MISSING else tag for tag in gold]] = 9.0  # nobody may look at those
        words = word_spans(utterance.text, whole_words)
        by_word = word_log_probs(log_softmax(logits), theirs.offsets, words, grammar)
        best = [tags[i] for i in by_word.argmax(axis=1)]
        if whole_words:
            assert spans_from_tags(best, words) == utterance.entities
        begun, later = words_begun_in(ours.offsets, words)
        taught = [(word, inner, tag) for word, inner, tag in zip(begun, later, wanted, strict=True) if tag != MISSING]
        numbers, inside, expected = (list(column) for column in zip(*taught, strict=True))
        assert NO_WORD not in numbers
        at_tokens = token_log_probs(by_word[numbers], np.array(inside), grammar)
        assert at_tokens.argmax(axis=1).tolist() == expected
        compared += len(taught)
    assert compared > 500


def test_entities_next_to_each_other_stay_two():
    text, entities = "nine ten", (Entity(0, 4, "a"), Entity(5, 8, "a"))
    gold, _ = align(entities, Encoding([1, 2, 3], [(0, 1), (1, 4), (5, 8)]), {t: i for i, t in enumerate(TAGS)})
    logits = np.zeros((3, 5))
    logits[np.arange(3), gold] = 5.0
    best = word_log_probs(log_softmax(logits), [(0, 1), (1, 4), (5, 8)], word_spans(text), GRAMMAR).argmax(axis=1)
    assert spans_from_tags([TAGS[i] for i in best], word_spans(text)) == entities
