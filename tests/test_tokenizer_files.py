"""Tokenizer files of others are read right or refused, what a format cannot hold is said. Oracle: `tokenizers`."""

import json
import random

import pytest

from weebill import templates
from weebill.errors import ArtifactError, ConfigError
from weebill.tiktoken_files import tiktoken_losses
from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer
from weebill.tokenizer_stats import size_curve

TRAINED = Tokenizer.train([u.text for u in templates.generate()[0][:200]], 300, processes=1)


def _changed(tmp_path, change, tokenizer=TRAINED):
    """Write a tokenizer.json with some of its parts changed; returns them and Hugging Face's reading of the file."""
    from tokenizers import Tokenizer as Peer

    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    peer = Peer.from_file(str(path))
    peer.encode_special_tokens = True
    return path, peer


# -- tokenizer.json


def test_normalizers_in_another_order_are_refused_as_they_give_other_ids(tmp_path):
    def lowercase_first(value):
        value["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFC"}]}

    path, peer = _changed(tmp_path, lowercase_first)
    ours = Tokenizer(TRAINED.merges, normalizers=("nfc", "lowercase"))
    assert peer.encode("J\u030cAB").ids != ours.encode("J\u030cAB").token_ids
    with pytest.raises(ArtifactError, match="the normalizers lowercase, nfc in this order; weebill applies nfc first"):
        Tokenizer.load(path)


def _frame(before, after):
    """Return a change that puts the named tokens around a text, whatever their ids."""

    def change(value):
        ids = {token["content"]: token["id"] for token in value["added_tokens"]}
        special = [{"SpecialToken": {"id": name, "type_id": 0}} for name in (*before, *after)]
        text = {"Sequence": {"id": "A", "type_id": 0}}
        value["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [*special[: len(before)], text, *special[len(before) :]],
            "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (*before, *after)},
        }

    return change


@pytest.mark.parametrize(
    "before, after",
    [(["<bos>"], ["[SEP]"]), (["[MASK]"], ["[SEP]"]), (["[CLS]"], ["<bos>"]), (["[CLS]"], []), ([], ["[SEP]"])],
    ids=str,
)
@pytest.mark.parametrize("cls", ["[CLS]", "[X]"])
def test_a_frame_that_is_not_ours_is_refused(tmp_path, before, after, cls):
    names = ("[PAD]", cls, "[SEP]", "[MASK]", "<bos>")
    before = [cls if name == "[CLS]" else name for name in before]
    tokenizer = Tokenizer.train(["a b"] * 9, 262, special_tokens=names, processes=1)
    path, peer = _changed(tmp_path, _frame(before, after), tokenizer)
    theirs = [peer.id_to_token(i) for i in peer.encode("a").ids]
    assert theirs == [*before, "a", *after]
    if (before, after) == ([], ["[SEP]"]) and cls == "[X]":  # a tokenizer without [CLS] frames so
        assert Tokenizer.load(path).encode("a").token_ids == peer.encode("a").ids
        return
    with pytest.raises(ArtifactError) as raised:
        Tokenizer.load(path)
    assert f"a frame of {' '.join([*before, 'text', *after])}, where weebill puts [CLS] or <s> before" in str(
        raised.value
    )


@pytest.mark.parametrize("before, after", [(["[CLS]"], ["[SEP]"]), ([], [])], ids=str)
def test_our_own_frame_and_none_are_read(tmp_path, before, after):
    path, peer = _changed(tmp_path, _frame(before, after))
    for text in ("wake me up", ""):
        assert Tokenizer.load(path).encode(text).token_ids == peer.encode(text).ids


def test_the_ids_of_a_frame_are_those_of_the_template_not_of_its_names(tmp_path):
    def swapped(value):
        _frame(["[CLS]"], ["[SEP]"])(value)
        value["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [3]

    path, peer = _changed(tmp_path, swapped)
    assert peer.encode("a").ids[0] == 3
    with pytest.raises(ArtifactError, match=r"a frame of \[MASK\] text \[SEP\]"):
        Tokenizer.load(path)


def test_roberta_processing_names_its_own_tokens(tmp_path):
    def change(value, cls):
        value["post_processor"] = {"type": "RobertaProcessing", "cls": cls, "sep": ["[SEP]", 2], "trim_offsets": True,
                                   "add_prefix_space": False}  # fmt: skip

    path, peer = _changed(tmp_path, lambda value: change(value, ["[CLS]", 1]))
    mine, theirs = Tokenizer.load(path).encode("wake me"), peer.encode("wake me")
    assert (mine.token_ids, mine.offsets) == (theirs.ids, theirs.offsets)
    path, peer = _changed(tmp_path, lambda value: change(value, ["[MASK]", 3]))
    assert peer.encode("a").ids[0] == 3
    with pytest.raises(ArtifactError, match=r"a frame of \[MASK\] text \[SEP\]"):
        Tokenizer.load(path)


def test_an_added_token_that_texts_would_be_searched_for_is_refused(tmp_path):
    def change(value):
        value["added_tokens"][4]["special"] = False

    tokenizer = Tokenizer.train(["a b"] * 9, 262, special_tokens=("[PAD]", "[CLS]", "[SEP]", "[MASK]", "<n>"))
    path, peer = _changed(tmp_path, change, tokenizer)
    assert peer.encode("a<n>b").tokens[2] == "<n>"  # which ours, from a text, never is
    with pytest.raises(ArtifactError, match="the added token '<n>' with special = false, which is searched for in"):
        Tokenizer.load(path)


def test_dropout_for_training_is_left_out_of_plain_encoding(tmp_path):
    path, peer = _changed(tmp_path, lambda value: value["model"].update(dropout=0.5))
    drawn = {tuple(peer.encode("wake me up at nine am").ids) for _ in range(20)}
    assert len(drawn) > 1  # Hugging Face draws at every call
    mine = Tokenizer.load(path)
    assert mine.encode("wake me up at nine am") == TRAINED.encode("wake me up at nine am")
    rng = random.Random(0)
    assert len({tuple(mine.encode_with_dropout("wake me up at nine am", 0.5, rng)) for _ in range(20)}) > 1


# -- what the other formats cannot hold


def test_a_merge_map_is_refused_where_it_would_lose_frame_or_offsets(tmp_path):
    for options in ({"framed": False}, {"trim_offsets": False}):
        tokenizer = Tokenizer(TRAINED.merges, **options)
        with pytest.raises(ConfigError, match=r"x\.json: expected a tokenizer that frames texts and trims offsets"):
            tokenizer.save_merge_map(tmp_path / "x.json")
        assert not (tmp_path / "x.json").exists()
    without_cls = Tokenizer.train(["a b"] * 9, 258, special_tokens=("<pad>",))
    without_cls.save_merge_map(tmp_path / "x.json")  # nothing to frame with, so nothing is lost
    assert Tokenizer.load(tmp_path / "x.json").frame == ([], []) == without_cls.frame


def _numbered(names):
    """Return a tokenizer of a few merges with these special tokens, and what a .tiktoken file of it loses."""
    tokenizer = Tokenizer.train(["wake me up"] * 9, 270, special_tokens=names)
    return tokenizer, tiktoken_losses(tokenizer)


def test_a_tiktoken_file_says_what_it_loses_and_reading_it_what_it_assumes(tmp_path, caplog):
    five, losses = _numbered((*SPECIAL_TOKENS, "<user>"))
    assert losses == [
        "the special tokens [PAD] = 0, [CLS] = 1, [SEP] = 2, [MASK] = 3, <user> = 4",
        "the frame of a text: [CLS] before it, [SEP] after it",
    ]
    others, losses = _numbered(("<pad>", "<s>", "</s>", "<user>"))
    assert losses == ["the special tokens <pad> = 0, <s> = 1, </s> = 2, <user> = 3"]  # read as [PAD], [CLS] …
    assert _numbered(SPECIAL_TOKENS)[1] == []
    loose = Tokenizer(TRAINED.merges, "gpt4", framed=False, normalizers=("lowercase", "nfc"), trim_offsets=False)
    assert tiktoken_losses(loose) == [
        "the normalizers nfc, lowercase: apply them before",
        "the split pattern gpt4: name it when you read the file",
        "the frame of a text: nothing before it, nothing after it",
        "that offsets hold the spaces at the edges of tokens",
    ]

    def read(tokenizer, split_pattern=None):
        caplog.clear()
        tokenizer.save_tiktoken(tmp_path / "x.tiktoken")
        return Tokenizer.load(tmp_path / "x.tiktoken", split_pattern), caplog.text

    again, said = read(five)
    assert again.special_tokens == {} and again.frame == ([], [])
    assert "x.tiktoken: such a file holds ordinary tokens alone; assumed: the split pattern gpt2" in said
    assert "no special tokens, though no token has the ids 0, 1, 2, 3, 4" in said
    again, said = read(others, "gpt2")
    assert again.special_tokens == {name: i for i, name in enumerate(SPECIAL_TOKENS)}
    assert "assumed: the special tokens [PAD] = 0, [CLS] = 1, [SEP] = 2, [MASK] = 3" in said and "gpt2" not in said
    bytes_first = Tokenizer({(0, 1): 256}, special_tokens=(), byte_ids=range(256))
    assert read(bytes_first, "gpt2")[1] == "" and "gpt2" in read(bytes_first)[1]


def test_a_curve_over_ids_without_tokens_says_why_not(tmp_path):
    _numbered((*SPECIAL_TOKENS, "<user>"))[0].save_tiktoken(tmp_path / "x.tiktoken")
    with pytest.raises(ConfigError, match=r"got one without for 0 \(a \.tiktoken file does not hold special tokens\)"):
        size_curve(Tokenizer.load(tmp_path / "x.tiktoken"), ["wake me up"])


def test_a_split_pattern_is_for_tiktoken_files_alone(tmp_path):
    TRAINED.save(tmp_path)
    with pytest.raises(ConfigError, match=r"split_pattern: expected a \.tiktoken file, which does not say its own"):
        Tokenizer.load(tmp_path, "gpt4")
