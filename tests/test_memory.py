"""What a tokenizer remembers: the same answers with and without, and a bound."""

import sys

from weebill import tokenizer as tokenizer_room
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


def test_a_tokenizers_memories_are_bounded_under_text_that_never_repeats(monkeypatch):
    monkeypatch.setattr(tokenizer_room, "MEMORY_BYTES", 1_000_000)
    tokenizer = Tokenizer.packaged()
    fresh = [tokenizer.encode_ordinary(f"w{i}x {i * 7919}y! ünï{i}") for i in range(6_000)]
    memories = [v for v in vars(tokenizer).values() if isinstance(v, Memory)]
    assert len(memories) == 3 and all(_real_bytes(held) <= 1_000_000 for held in memories)
    assert fresh[:50] == [Tokenizer.packaged().encode_ordinary(f"w{i}x {i * 7919}y! ünï{i}") for i in range(50)]
