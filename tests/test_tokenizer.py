"""Token ids, offsets and files: parity with Hugging Face tokenizers, round trips, errors."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill import templates
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [
    "wake me up at nine am on friday",
    "",
    " ",
    "two  spaces and a tab\t\tthen\n\n  lines ",
    "play 🎵 by Björk, s'il vous plaît — naïve café",
    "👩‍👩‍👧‍👦 family\u00a0here",
    "日本語のテキスト и кириллица हिन्दी",
    "[CLS] is not special [PAD]",
    "\x00\x1c\x85 control",
    "a" * 300,
]


@pytest.fixture(scope="module")
def packaged():
    return Tokenizer.packaged()


@pytest.fixture(scope="module")
def peer(packaged, tmp_path_factory):
    from tokenizers import Tokenizer as Peer

    folder = tmp_path_factory.mktemp("tokenizer")
    packaged.save(folder)
    loaded = Peer.from_file(str(folder / "tokenizer.json"))
    loaded.encode_special_tokens = True  # what split_special_tokens in tokenizer_config.json asks for
    return loaded


def test_packaged_has_8192_tokens_and_pad_first(packaged):
    assert packaged.vocab_size == 8192
    assert [packaged.token_bytes(i).decode() for i in range(4)] == list(SPECIAL_TOKENS)
    assert (packaged.pad_id, packaged.cls_id, packaged.sep_id, packaged.mask_id) == (0, 1, 2, 3)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_offsets_equal_hugging_face(packaged, peer, text):
    mine, theirs = packaged.encode(text), peer.encode(text)
    assert mine.token_ids == theirs.ids
    assert mine.offsets == theirs.offsets


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_equals_hugging_face_and_comes_back(packaged, peer, text):
    mine, theirs = packaged.encode(text), peer.encode(text)
    assert (mine.token_ids, mine.offsets) == (theirs.ids, theirs.offsets)
    assert packaged.decode(mine.token_ids) == text == peer.decode(mine.token_ids)


def test_offsets_never_cover_an_edge_space(packaged):
    text = "wake  me up 🎵 now"
    for start, end in packaged.encode(text).offsets:
        assert text[start:end] == text[start:end].strip()


def test_a_lone_surrogate_counts_as_replacement_character(packaged):
    broken, replaced = packaged.encode("a\ud800b"), packaged.encode("a\ufffdb")
    assert broken == replaced


def test_truncation_keeps_sep_and_counts_what_it_drops(packaged):
    whole, cut = packaged.encode("wake me up at nine am"), packaged.encode("wake me up at nine am", max_length=5)
    assert cut.token_ids == [*whole.token_ids[:4], packaged.sep_id]
    assert cut.dropped_tokens == len(whole.token_ids) - 5 and whole.dropped_tokens == 0
    assert packaged.encode("wake", max_length=len(packaged.encode("wake").token_ids)).dropped_tokens == 0


def test_special_tokens_need_permission(packaged):
    assert packaged.mask_id not in packaged.encode("a [MASK] b").token_ids
    allowed = packaged.encode("a [MASK] b", allow_special=True)
    assert allowed.token_ids.count(packaged.mask_id) == 1
    assert allowed.offsets[allowed.token_ids.index(packaged.mask_id)] == (2, 8)


def test_batch_pads_on_the_right(packaged):
    batch = packaged.encode_batch(["wake me up", "hi", ""])
    lengths = [len(e.token_ids) for e in batch.encodings]
    assert batch.attention_mask_BT.sum(1).tolist() == lengths
    assert batch.input_ids_BT[2].tolist() == [1, 2] + [packaged.pad_id] * (max(lengths) - 2)
    assert packaged.encode_batch([]).input_ids_BT.shape == (0, 0)


def test_a_character_cut_in_two_decodes_to_a_replacement(packaged):
    token_ids = Tokenizer({}).encode_ordinary("é")
    assert len(token_ids) == 2 and Tokenizer({}).decode(token_ids[:1]) == "\ufffd"


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", r"\w+|\W"])
def test_save_load_and_peers_agree(pattern, tmp_path):
    from tokenizers import Tokenizer as Peer
    from transformers import AutoTokenizer

    trained = Tokenizer.train((u.text for u in templates.generate()[0][:400]), 400, split_pattern=pattern)
    trained.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.merges, again.split_pattern, again.vocab_size) == (trained.merges, pattern, 400)
    peer = Peer.from_file(str(tmp_path / "tokenizer.json"))
    peer.encode_special_tokens = True
    auto = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in TEXTS:
        encoding = trained.encode(text)
        assert again.encode(text) == encoding
        assert (peer.encode(text).ids, peer.encode(text).offsets) == (encoding.token_ids, encoding.offsets)
        assert auto(text)["input_ids"] == encoding.token_ids


def test_merge_map_round_trip(packaged, tmp_path):
    packaged.save_merge_map(tmp_path / "bpe_merged.json")
    again = Tokenizer.load(tmp_path / "bpe_merged.json")
    assert list(again.merges.items()) == list(packaged.merges.items())
    value = json.loads((tmp_path / "bpe_merged.json").read_text())
    assert next(iter(value["merges"].items())) == ("Ġ t", 260)


def test_errors(tmp_path, packaged):
    with pytest.raises(ConfigError, match=r"expected at least 260 \(4 special tokens and 256 bytes\), got 100"):
        Tokenizer.train(["a"], 100)
    with pytest.raises(DataError, match="expected text to train a tokenizer on, got none"):
        Tokenizer.train([], 300)
    with pytest.raises(ArtifactError, match="expected a tokenizer, got nothing there"):
        Tokenizer.load(tmp_path)
    packaged.save(tmp_path)
    value = json.loads((tmp_path / "tokenizer.json").read_text())
    value["model"]["vocab"]["wake"] = 3
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: expected a byte-level BPE tokenizer"):
        Tokenizer.load(tmp_path)
    for body in ("{", "[]", "{}", '{"model": null, "pre_tokenizer": 3}'):
        (tmp_path / "tokenizer.json").write_text(body)
        with pytest.raises(ArtifactError, match=r"tokenizer\.json: expected"):
            Tokenizer.load(tmp_path)
    (tmp_path / "map.json").write_text(json.dumps({"format": "weebill-merge-map", "format_version": 9}))
    with pytest.raises(ArtifactError, match="expected format_version 1, got 9"):
        Tokenizer.load(tmp_path / "map.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="expected a place to write"):
        packaged.save(tmp_path / "file")
