"""Token ids, offsets and files: parity with Hugging Face tokenizers, round trips, errors."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill import templates
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.normalize import normalize
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


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_batches_of_new_words_equal_hugging_face(packaged, pattern, tmp_path):
    from tokenizers import Tokenizer as Peer

    packaged = Tokenizer(packaged.merges, pattern)
    packaged.save(tmp_path)
    peer = Peer.from_file(str(tmp_path / "tokenizer.json"))
    peer.encode_special_tokens = True
    rng = random.Random(0)
    pieces = [
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "\r\n",
        "\x1c",
        "\xa0",
        "'s",
        "it",
        "Ab1",
        "é",
        "日",
        ".",
        ", ",
        ' "',
        "word",
    ]
    for _ in range(60):
        texts = ["".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(40)]
        texts += [" ".join("".join(rng.choices("abcdefgh\n.é1", k=rng.randint(1, 40))) for _ in range(60))]
        visible = "abcABC019.,-'!~\n" if rng.random() < 0.9 else "é日"  # many of ASCII, or hardly any
        texts += [" ".join("".join(rng.choices(visible, k=rng.randint(1, 12))) for _ in range(150))]
        fresh = Tokenizer(packaged.merges, pattern)
        want = [encoding.ids for encoding in peer.encode_batch(texts)]
        assert [e.token_ids for e in fresh.encode_batch(texts).encodings] == want
        assert [e.token_ids for e in fresh.encode_batch(texts).encodings] == want  # from memory
        assert [packaged.encode(text).token_ids for text in texts] == want


def test_offsets_are_whole_numbers_also_where_characters_are_not_ascii(packaged):
    offsets = packaged.encode("C’est ☕").offsets
    assert {type(at) for span in offsets for at in span} == {int}  # a bool equals 1, and is `true` in JSON


def test_offsets_never_cover_an_edge_space(packaged):
    text = "wake  me up 🎵 now"
    for start, end in packaged.encode(text).offsets:
        assert text[start:end] == text[start:end].strip()


def test_a_lone_surrogate_counts_as_replacement_character(packaged):
    broken, replaced = packaged.encode("a\ud800b"), packaged.encode("a\ufffdb")
    assert broken == replaced
    words = [f"x{i * 7919}\ud800b\udcffé" for i in range(200)]
    batch = Tokenizer.packaged().encode_batch([" ".join(words)])
    assert (
        batch.encodings[0].token_ids
        == packaged.encode(" ".join(words).replace("\ud800", "\ufffd").replace("\udcff", "\ufffd")).token_ids
    )


def test_truncation_keeps_sep_and_counts_what_it_drops(packaged):
    whole, cut = packaged.encode("wake me up at nine am"), packaged.encode("wake me up at nine am", max_length=5)
    assert cut.token_ids == [*whole.token_ids[:4], packaged.sep_id]
    assert cut.dropped_tokens == len(whole.token_ids) - 5 and whole.dropped_tokens == 0
    assert packaged.encode("wake", max_length=len(packaged.encode("wake").token_ids)).dropped_tokens == 0


@pytest.mark.parametrize("max_length", [1, 0, -1])
def test_a_length_that_the_frame_does_not_fit_in_is_refused(packaged, max_length):
    for call in (packaged.encode, lambda text, length: packaged.encode_batch([text], length),
                 lambda text, length: packaged.encode_batch([text, text], length)):  # fmt: skip
        assert call("wake me up", 2) is not None
        with pytest.raises(ConfigError, match=rf"max_length: expected at least 2, for .*, got {max_length}; raise it"):
            call("wake me up", max_length)
    unframed = Tokenizer(packaged.merges, framed=False)
    assert unframed.encode("wake me up", max_length=0).token_ids == []
    with pytest.raises(ConfigError, match=r"max_length: expected at least 0, for .*, got -1"):
        unframed.encode("wake me up", max_length=-1)


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


def test_the_encodings_of_a_batch_are_a_list_whose_rows_are_made_when_asked_for(packaged):
    texts = ["wake me up", "hi", "", "é " * 80]
    encodings = packaged.encode_batch(texts, max_length=40).encodings
    want = [packaged.encode(text, max_length=40) for text in texts]
    assert list(encodings) == want and encodings[-1] == want[3] and encodings[1:3] == want[1:3]
    assert encodings[0] is encodings[0] is encodings[-4]  # ids and offsets are worked out once
    with pytest.raises(IndexError):
        encodings[4]
    texts[0] = "é"  # a batch is of the texts as they were
    assert packaged.encode_batch(texts).encodings[0] != want[0] == encodings[0]
    changed = packaged.encode_batch(changing := ["wake me up", "hi"]).encodings
    changing[0] = "é"
    assert changed[0].offsets == want[0].offsets


@pytest.mark.parametrize("words", [3, 300])
def test_ordinary_ids_are_plain_ints(packaged, words):
    text = "wake me up é " * words
    found = packaged.encode_ordinary(text)
    assert found == packaged.encode(text).token_ids[1:-1] and {type(i) for i in found} == {int}


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
    with pytest.raises(DataError, match="expected text to train a tokenizer on, got white space alone"):
        Tokenizer.train(["\n", "\n"], 300)
    with pytest.raises(ConfigError, match="min_frequency: expected 0 or more, got -3"):
        Tokenizer.train(["a"], 300, min_frequency=-3)
    with pytest.raises(ConfigError, match="expected a list of texts, got one, 'abc abc'; put it into one"):
        Tokenizer.train("abc abc", 300)
    with pytest.raises(ConfigError, match="expected a list of texts, got one, 'abc'"):
        packaged.encode_batch("abc")
    with pytest.raises(ConfigError, match=r"texts\[1\]: expected a text, got None \(NoneType\)"):
        packaged.encode_batch(["abc", None])
    with pytest.raises(ConfigError, match=r"expected a text, got b'abc' \(bytes\)"):
        packaged.encode(b"abc")
    for dropout in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=rf"dropout: expected a share from 0 to 1, got {dropout}"):
            packaged.encode_with_dropout("abc", dropout, random.Random(0))
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


# -- options


@pytest.mark.parametrize("normalizers", [("nfc",), ("lowercase",), ("nfc", "lowercase")])
def test_normalising_gives_hugging_faces_ids_and_offsets_of_the_original(normalizers, tmp_path):
    from tokenizers import Tokenizer as Peer

    trained = Tokenizer.train((u.text for u in templates.generate()[0][:400]), 400, normalizers=normalizers)
    trained.save(tmp_path)
    assert Tokenizer.load(tmp_path).normalizers == normalizers
    peer = Peer.from_file(str(tmp_path / "tokenizer.json"))
    peer.encode_special_tokens = True
    for text in [*TEXTS, "WAKE Me Up", "ΟΔΟΣ İstanbul", "cafe\u0301 e\u0323\u0301 up"]:
        mine, theirs = trained.encode(text), peer.encode(text)
        assert mine.token_ids == theirs.ids
        if len(normalize(text, normalizers)) == len(text):
            assert mine.offsets == theirs.offsets
        assert all(text[a:b] == text[a:b].strip(" ") for a, b in mine.offsets)
    # one character where two were: the token that holds it covers both, which Hugging Face's does not
    encoding = trained.encode("cafe\u0301 up")
    assert max(end for _, end in encoding.offsets) == len("cafe\u0301 up")
    if "nfc" in normalizers:
        assert trained.encode("cafe\u0301").token_ids == trained.encode("café").token_ids
        assert any(start <= 3 and end == 5 for start, end in encoding.offsets)


def test_special_tokens_can_be_chosen(tmp_path):
    trained = Tokenizer.train(["<user> hello <pad>"] * 9, 270, special_tokens=("<pad>", "<s>", "</s>", "<user>"))
    assert (trained.pad_id, trained.cls_id, trained.sep_id, trained.mask_id) == (0, 1, 2, None)
    trained.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.special_tokens == trained.special_tokens
    assert again.encode("<user> hello", allow_special=True).token_ids[1] == 3
    assert 3 not in again.encode("<user> hello").token_ids
    with pytest.raises(ConfigError, match=r"special_tokens: expected distinct names, got \['a', 'a'\]"):
        Tokenizer.train(["a"], 300, special_tokens=("a", "a"))


def test_dropout_is_seeded_and_always_gives_the_text(packaged):
    text = "wake me up at nine 🎵 tomorrow"
    draws = [packaged.encode_with_dropout(text, 0.3, random.Random(seed)) for seed in range(20)]
    assert draws == [packaged.encode_with_dropout(text, 0.3, random.Random(seed)) for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) > 5
    assert all(packaged.decode(draw) == text for draw in draws)
    assert packaged.encode_with_dropout(text, 0.0, random.Random(0)) == packaged.encode_ordinary(text)
    assert len(packaged.encode_with_dropout(text, 1.0, random.Random(0))) == len(text.encode())


def test_batch_says_what_was_truncated(packaged):
    batch = packaged.encode_batch(["hi", "wake me up at nine am", "x"], max_length=5)
    whole = len(packaged.encode("wake me up at nine am").token_ids)
    assert batch.truncated == {1: whole - 5}


@pytest.mark.parametrize(
    "text",
    [
        "x" * 300_000,
        "wakemeupatnine" * 20_000,
        "日本語のテキスト" * 20_000,
        " " * 200_000,
        "a\n " * 70_000,
        "é" * 150_000,
    ],
    ids=["one letter", "no space", "no space, three bytes", "spaces", "white space", "two bytes"],
)
def test_pathological_texts_equal_hugging_face(packaged, peer, text):
    mine, theirs = packaged.encode(text), peer.encode(text)
    assert mine.token_ids == theirs.ids and mine.offsets == theirs.offsets


# -- files of others


def _roberta(tmp_path, texts):
    from tokenizers.implementations import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    peer = ByteLevelBPETokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    peer.train_from_iterator(texts, vocab_size=600, special_tokens=names, show_progress=False)
    peer._tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    peer.save(str(tmp_path / "tokenizer.json"))


def _gpt2(tmp_path, texts):
    """Like openai-community/gpt2: bytes first, merges, the special token last, no frame, offsets with their space."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Peer

    peer = Peer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.decoder = decoders.ByteLevel()
    peer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    peer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    peer.save(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("make", [_roberta, _gpt2])
def test_reads_tokenizers_of_others(make, tmp_path):
    from tokenizers import Tokenizer as Peer

    make(tmp_path, [u.text for u in templates.generate()[0][:800]])
    peer = Peer.from_file(str(tmp_path / "tokenizer.json"))
    peer.encode_special_tokens = True
    mine = Tokenizer.load(tmp_path / "tokenizer.json")
    mine.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    for text in TEXTS:
        theirs = peer.encode(text)
        for tokenizer in (mine, again):
            encoding = tokenizer.encode(text)
            assert (encoding.token_ids, encoding.offsets) == (theirs.ids, theirs.offsets)
            assert tokenizer.decode(encoding.token_ids) == text
    assert mine.vocab_size == peer.get_vocab_size()


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_tiktoken_loads_our_export_and_we_load_it_back(pattern, tmp_path):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    from weebill.bpe import SPLIT_PATTERNS

    trained = Tokenizer.train((u.text for u in templates.generate()[0][:800]), 700, split_pattern=pattern)
    trained.save_tiktoken(tmp_path / "w.tiktoken")
    ranks = load_tiktoken_bpe(str(tmp_path / "w.tiktoken"))
    peer = tiktoken.Encoding("w", pat_str=SPLIT_PATTERNS[pattern], mergeable_ranks=ranks,
                             special_tokens=trained.special_tokens)  # fmt: skip
    again = Tokenizer.load(tmp_path / "w.tiktoken", split_pattern=pattern)
    assert (again.merges, again.special_tokens) == (trained.merges, trained.special_tokens)
    for text in TEXTS:
        assert trained.encode_ordinary(text) == peer.encode_ordinary(text) == again.encode_ordinary(text)


def test_other_kinds_of_tokenizer_json_are_refused(tmp_path, packaged):
    packaged.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    for change, message in (
        ({"normalizer": {"type": "NFKC"}}, "a normalizer NFKC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "a pre-tokenizer Whitespace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space=True"),
        ({"post_processor": {"type": "BertProcessing"}}, "a post-processor BertProcessing"),
        ({"model": {"type": "WordPiece"}}, "a model of type WordPiece"),
        ({"model": json.loads(whole)["model"] | {"ignore_merges": True}}, "ignore_merges = True"),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(ArtifactError, match=message):
            Tokenizer.load(tmp_path)


def test_damaged_merge_maps_and_tiktoken_files(tmp_path, packaged):
    packaged.cut(300).save_merge_map(tmp_path / "map.json")
    whole = json.loads((tmp_path / "map.json").read_text())
    name = next(iter(whole["merges"]))
    for merges in ({name: 7}, {"Ġ": 260}, {"no such": 260}, [1], {name: 260, "x ": 261}):
        (tmp_path / "map.json").write_text(json.dumps(whole | {"merges": merges}))
        with pytest.raises(ArtifactError, match=r"map\.json: expected a merge map, got a damaged one"):
            Tokenizer.load(tmp_path / "map.json")
    packaged.cut(300).save_tiktoken(tmp_path / "t.tiktoken")
    lines = (tmp_path / "t.tiktoken").read_text().splitlines()
    for body, message in (
        ("YQ== 4\n", "expected a token for each of the 256 bytes, got none for 0x00"),
        ("\n".join([*lines, "!! 4"]), r"t\.tiktoken:297: expected a base64 token and its rank"),
        (
            "\n".join([*lines, "enp6enp6 999"]),
            "expected tokens that two smaller ones make, got b'zzzzzz', which takes 6",
        ),
    ):
        (tmp_path / "t.tiktoken").write_text(body)
        with pytest.raises(ArtifactError, match=message):
            Tokenizer.load(tmp_path / "t.tiktoken")


def test_ids_out_of_range_do_not_decode(packaged):
    with pytest.raises(DataError, match="expected token ids from 0 to 8191, got 9000 at position 1"):
        packaged.decode([5, 9000])
    with pytest.raises(DataError, match="got -1 at position 0"):
        packaged.decode([-1])


def test_streams_from_any_iterable_once():
    texts = (u.text for u in templates.generate()[0][:200])
    assert Tokenizer.train(texts, 300).vocab_size == 300
    assert next(texts, None) is None


@pytest.mark.parametrize("text", ["", "wake me up", "wake me up at nine am on friday", "  a  b ", "né 🎵"])
def test_a_batch_of_one_text_is_that_row_of_a_larger_one(packaged, text):
    one, two = packaged.encode_batch([text], max_length=6), packaged.encode_batch([text, "x " * 9], max_length=6)
    length = len(one.encodings[0].token_ids)
    assert one.input_ids_BT.dtype == np.int64 and one.attention_mask_BT.dtype == bool and one.attention_mask_BT.all()
    assert one.input_ids_BT[0].tolist() == two.input_ids_BT[0, :length].tolist()
    assert one.encodings[0] == two.encodings[0] == packaged.encode(text, max_length=6)


def test_offsets_are_numbers_in_json():
    assert json.dumps(Tokenizer.packaged().encode("é").offsets) == "[[0, 0], [0, 1], [0, 0]]"
