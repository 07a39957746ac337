"""What a tokenizer remembers: the same answers with and without, and a bound."""

import sys

from weebill import memory
from weebill.memory import Memory
from weebill.tokenizer import Tokenizer


def _real_bytes(held):
    return sys.getsizeof(held) + sum(sys.getsizeof(k) + sys.getsizeof(v) for k, v in held.items())


def test_forgets_the_older_half_and_stays_within_its_bound(monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_BYTES", 2_000_000)
    asked = []
    held = Memory(lambda piece: asked.append(piece) or [len(piece)] * (len(piece) % 7))
    for i in range(30_000):
        assert held[f"piece {i}"] == [len(f"piece {i}")] * (len(f"piece {i}") % 7)
    assert _real_bytes(held) <= 2_000_000
    assert "piece 29999" in held and "piece 0" not in held
    held["piece 29999"]
    assert asked.count("piece 29999") == 1


def test_a_whole_document_is_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_BYTES", 2_000_000)
    held = Memory(lambda piece: [0] * len(piece))
    assert held["x" * 5_000] == [0] * 5_000 and len(held) == 0


def test_a_tokenizers_memories_are_bounded_under_text_that_never_repeats(monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_BYTES", 1_000_000)
    tokenizer = Tokenizer.packaged()
    fresh = [tokenizer.encode_ordinary(f"w{i}x {i * 7919}y! ünï{i}") for i in range(6_000)]
    memories = [v for v in vars(tokenizer).values() if isinstance(v, Memory)]
    assert len(memories) == 3 and all(_real_bytes(held) <= 1_000_000 for held in memories)
    assert fresh[:50] == [Tokenizer.packaged().encode_ordinary(f"w{i}x {i * 7919}y! ünï{i}") for i in range(50)]
