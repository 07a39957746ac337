"""The tokenizer of a BERT: ids and offsets are as in transformers, gold spans align, what cannot be run is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import pre_tokenizers, processors, trainers
from tokenizers.models import Unigram
from transformers import AutoTokenizer

from weebill import data, label_facts, templates
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.hf_tokenizer import HuggingFaceTokenizer, load_tokenizer
from weebill.tags import tag_vocabulary
from weebill.tokenizer import Tokenizer

TEXTS = [
    "wake me up at nine am",
    "",
    " ",
    "Naïve CAFÉ 🎵🎵 \u00a0here",
    "a" * 200,
    "日本 [UNK]",
    "line\n\nline\u2028 x",
]


@pytest.fixture(scope="module")
def tokenizer(bert_folder):
    return load_tokenizer(bert_folder)


@pytest.fixture(scope="module")
def peer(bert_folder):
    return AutoTokenizer.from_pretrained(str(bert_folder), split_special_tokens=True)


@pytest.fixture
def copy(bert_folder, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / name, folder / name)
    return folder


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _same(tokenizer, peer, texts, max_length=None):
    found = tokenizer.encode_batch(texts, max_length).encodings
    want = peer(texts, return_offsets_mapping=True, truncation=max_length is not None, max_length=max_length)
    assert [e.token_ids for e in found] == want["input_ids"]
    assert [e.offsets for e in found] == [[tuple(span) for span in row] for row in want["offset_mapping"]]


@given(st.lists(st.text(), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_ids_and_offsets_of_any_text_equal_transformers(tokenizer, peer, texts):
    _same(tokenizer, peer, texts)
    _same(tokenizer, peer, texts, max_length=6)


def test_a_batch_is_its_rows_padded(tokenizer):
    batch = tokenizer.encode_batch(TEXTS, max_length=9)
    for row, mask, text in zip(batch.input_ids_BT, batch.attention_mask_BT, TEXTS, strict=True):
        assert row[mask].tolist() == tokenizer.encode(text, max_length=9).token_ids
        assert set(row[~mask]) <= {tokenizer.pad_id}
    full = [len(tokenizer.encode(text).token_ids) for text in TEXTS]
    assert batch.truncated == {i: n - 9 for i, n in enumerate(full) if n > 9} and batch.truncated
    assert tokenizer.encode_batch([]).input_ids_BT.shape == (0, 0)
    assert tokenizer.encode("a\ud800").token_ids == tokenizer.encode("a\ufffd").token_ids


def test_a_length_without_room_for_the_frame_and_one_text_for_many_are_refused(tokenizer):
    assert len(tokenizer.encode("wake me up", 2).token_ids) == 2
    for call in (tokenizer.encode, lambda text, length: tokenizer.encode_batch([text], length)):
        with pytest.raises(ConfigError, match="max_length: expected at least 2, for the special tokens"):
            call("wake me up", 1)
    with pytest.raises(ConfigError, match="expected a list of texts, got one, 'abc'"):
        tokenizer.encode_batch("abc")
    with pytest.raises(ConfigError, match=r"expected a text, got None \(NoneType\); leave it out or make it a text"):
        tokenizer.encode(None)


def test_a_typed_special_token_is_text(tokenizer):
    assert set(tokenizer.special_tokens) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    inside = tokenizer.encode("[CLS] [MASK] [PAD]").token_ids[1:-1]
    assert not {tokenizer.pad_id, tokenizer.mask_id, tokenizer.special_tokens["[CLS]"]} & set(inside)


def test_gold_spans_align(tokenizer):
    rows = templates.generate()[0][:500]
    intents, labels = label_facts.labels_of(rows)
    assert data.label_rows(rows, tokenizer, 40, intents, tag_vocabulary(labels)).misaligned == []


def test_a_saved_tokenizer_is_the_same_for_us_and_for_transformers(tokenizer, tmp_path):
    tokenizer.save(tmp_path, max_length=40)
    _same(load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path)), [*TEXTS, "[CLS] x"])
    again = load_tokenizer(tmp_path)
    assert (again.vocab_size, again.pad_id, again.mask_id, again.frame, again.special_tokens) == (
        tokenizer.vocab_size, tokenizer.pad_id, tokenizer.mask_id, tokenizer.frame, tokenizer.special_tokens,
    )  # fmt: skip


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_alone_is_enough(bert_folder, tmp_path, lower):
    vocabulary = load_tokenizer(bert_folder)._inner.get_vocab()
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower, "model_max_length": 40}))
    shutil.copy(bert_folder / "config.json", tmp_path)  # tells transformers that it is a BERT's
    _same(load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path), split_special_tokens=True), TEXTS)


def test_tokenizer_config_decides_about_case_as_in_transformers(copy, peer):
    _edit(copy / "tokenizer_config.json", do_lower_case=False)
    cased = load_tokenizer(copy)
    _same(cased, AutoTokenizer.from_pretrained(str(copy), split_special_tokens=True), TEXTS)
    assert cased.encode("WAKE").token_ids != peer("WAKE")["input_ids"]


def test_truncation_and_padding_stored_in_the_file_are_not_used(copy):
    inner = Inner.from_file(str(copy / "tokenizer.json"))
    inner.enable_truncation(4)
    inner.enable_padding(length=16)
    inner.save(str(copy / "tokenizer.json"))
    assert len(load_tokenizer(copy).encode("w a k e m e").token_ids) == 8


def test_unigram_spans_leave_out_the_space_before_a_word(tmp_path):
    inner = Inner(Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    rows = templates.generate()[0][:300]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator([u.text for u in rows], trainer)
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.frame) == (1, 4, ([0], [2]))
    intents, labels = label_facts.labels_of(rows)
    assert data.label_rows(rows, tokenizer, 64, intents, tag_vocabulary(labels)).misaligned == []
    assert not {0, 1, 2, 4} & set(tokenizer.encode("<s> a <pad> <mask></s>").token_ids[1:-1])


def test_byte_level_bpe_is_read_by_weebill(tmp_path):
    Tokenizer.packaged().save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), Tokenizer)


def test_what_cannot_be_run_is_refused(copy, bert_folder, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="expected a tokenizer, got nothing there"):
        load_tokenizer(tmp_path)
    (copy / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: expected a tokenizer\.json, got a damaged one"):
        load_tokenizer(copy)
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ArtifactError, match=r"expected a BERT's vocabulary with \[UNK\], \[CLS\] and \[SEP\]"):
        load_tokenizer(copy)
    _edit(copy / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(ArtifactError, match=r"got the vocab\.txt of a BertJapaneseTokenizer"):
        load_tokenizer(copy)
    (copy / "tokenizer_config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json: expected JSON"):
        load_tokenizer(copy)
    inner = Inner.from_file(str(bert_folder / "tokenizer.json"))
    with pytest.raises(ArtifactError, match=r"got one without \[PAD\]"):
        HuggingFaceTokenizer(inner, {"cls": "[CLS]"})
    inner.post_processor = processors.TemplateProcessing("$A", special_tokens=[])
    with pytest.raises(ArtifactError, match=r"got one without \[CLS\] before a text"):
        HuggingFaceTokenizer(inner, {"pad": "[PAD]"})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"reading .* needs tokenizers, .* pip install 'weebill\[bert\]'"):
        load_tokenizer(bert_folder)


def test_offsets_index_code_points(tokenizer):
    encoding = tokenizer.encode("🎵 wake")
    assert encoding.offsets[1] == (0, 1)
    assert np.array(encoding.offsets)[2:-1].tolist()[-1][1] == 6
