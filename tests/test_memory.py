"""What a tokenizer remembers: the same answers with and without, and a bound."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from weebill import packed_encoder
from weebill.memory import Memory
from weebill.tokenizer import Tokenizer


def _real_bytes(held):
    return sys.getsizeof(held) + sum(sys.getsizeof(k) + sys.getsizeof(v) for k, v in held.items())


def test_forgets_the_older_half_and_stays_within_its_bound():
    asked = []
    held = Memory(lambda piece: asked.append(piece) or piece.encode() * (len(piece) % 7), 2_000_000)
    for i in range(30_000):
        assert held[f"piece {i}"] == f"piece {i}".encode() * (len(f"piece {i}") % 7)
    assert _real_bytes(held) <= 2_000_000
    assert "piece 29999" in held and "piece 0" not in held
    held["piece 29999"]
    assert asked.count("piece 29999") == 1


def test_a_whole_document_is_not_kept():
    held = Memory(lambda piece: bytes(len(piece)), 2_000_000)
    assert held["x" * 5_000] == bytes(5_000) and len(held) == 0


def test_promises_are_kept_once_filled_and_only_given_when_asked_for():
    held = Memory(str.encode, 2_000_000)
    held["known"]
    with held.promising() as promises:
        ids = [held["known"], held["new"], held["new"]]
    assert promises.made == 2 and list(promises) == ["new"] and "new" not in held
    promises["new"] += b"ids"
    assert b"".join(ids) == b"knownidsids" and held["new"] == b"new"


def test_promises_are_for_the_thread_that_asked():
    held = Memory(str.encode, 2_000_000)
    with held.promising(), ThreadPoolExecutor(1) as other:
        assert other.submit(held.__getitem__, "new").result() == b"new"


def test_threads_share_a_memory_that_is_always_full(monkeypatch):
    monkeypatch.setattr(packed_encoder, "MEMORY_BYTES", 40_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # change threads as often as can be
    try:
        tokenizer, alone = Tokenizer.packaged(), Tokenizer.packaged()
        texts = [[f"w{t}x{i} {i * 7919}y! ünï{i}" for i in range(400)] for t in range(8)]

        def encode(some):
            batches = [tokenizer.encode_batch(some[i : i + 40]) for i in range(0, len(some), 40)]
            return [e.token_ids for b in batches for e in b.encodings], [tokenizer.encode_ordinary(x) for x in some]

        with ThreadPoolExecutor(8) as threads:
            for some, (framed, ordinary) in zip(texts, threads.map(encode, texts), strict=True):
                assert [ids[1:-1] for ids in framed] == ordinary == [alone.encode_ordinary(x) for x in some]
    finally:
        sys.setswitchinterval(interval)


def test_keeps_many_at_once_within_its_bound():
    held = Memory(str.encode, 200_000)
    for i in range(100):
        pieces = [f"piece {i} {k}" for k in range(100)]
        held.keep(pieces, [piece.encode() for piece in pieces])
        assert _real_bytes(held) <= 200_000 and pieces[0] in held and pieces[-1] in held
    held.keep([f"{i}" for i in range(9_000)], [b""] * 9_000)
    assert "0" not in held and held["0"] == b"0"


@pytest.mark.parametrize("batch", [1, 300])
def test_a_tokenizers_memories_are_bounded_under_text_that_never_repeats(monkeypatch, batch):
    monkeypatch.setattr(packed_encoder, "MEMORY_BYTES", 1_000_000)
    tokenizer = Tokenizer.packaged()
    texts = [f"w{i}x {i * 7919}y! ünï{i}" for i in range(6_000)]
    fresh = [
        encoding.token_ids[1:-1]
        for i in range(0, len(texts), batch)
        for encoding in tokenizer.encode_batch(texts[i : i + batch]).encodings
    ]
    memories = [v for v in vars(tokenizer._encoder).values() if isinstance(v, Memory)]
    assert len(memories) == 3 and all(_real_bytes(held) <= 1_000_000 for held in memories)
    assert fresh[::97] == [Tokenizer.packaged().encode_ordinary(text) for text in texts[::97]]
