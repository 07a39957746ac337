"""Streaming texts: every kind of source gives the same texts, and bad ones are named."""

import gzip
import json
import os

import pytest

from weebill.corpus import stream_texts
from weebill.errors import DataError

LINES = ["wake me up\n", "\n", "naïve 🎵\u2028x\n"]


def test_sources(tmp_path):
    body = "".join(LINES).encode()
    folder = tmp_path / "corpus"
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_bytes(body)
    (folder / "b" / "c.txt.gz").write_bytes(gzip.compress(body))
    (folder / ".hidden").write_bytes(b"\xff")
    assert list(stream_texts([folder / "a.txt"])) == LINES
    assert list(stream_texts([folder])) == LINES * 2
    rows = [{"utt": line.removesuffix("\n"), "id": 1} for line in LINES]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n", encoding="utf-8")
    assert list(stream_texts([tmp_path / "rows.jsonl"], field="utt")) == LINES


def test_errors(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"utt": "a"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="expected the key that holds the text of each JSON line, got none"):
        list(stream_texts([tmp_path / "rows.jsonl"]))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: expected a text under 'utt', got only text"):
        list(stream_texts([tmp_path / "rows.jsonl"], field="utt"))
    with pytest.raises(DataError, match="correct the line or name the key that holds the text with --field"):
        list(stream_texts([tmp_path / "rows.jsonl"], field="utt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a folder with text files, got none in it"):
        list(stream_texts([tmp_path / "empty"]))
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:2: expected UTF-8, got byte 0xe9 at byte offset 8"):
        list(stream_texts([tmp_path / "latin.txt"]))
    with pytest.raises(DataError, match=r"save the file as UTF-8, or go away$"):
        list(stream_texts([tmp_path / "latin.txt"], or_else=", or go away"))
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9 x\nb\xff\n")
    with pytest.raises(DataError, match=r"mark\.txt:1: expected UTF-8, got byte 0xe9 at byte offset 6"):
        list(stream_texts([tmp_path / "mark.txt"]))
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbfcaf x\nb\xff\n")
    with pytest.raises(DataError, match=r"mark\.txt:2: expected UTF-8, got byte 0xff at byte offset 10"):
        list(stream_texts([tmp_path / "mark.txt"]))
    assert list(stream_texts([tmp_path / "mark.txt"], errors="replace")) == ["caf x\n", "b\ufffd\n"]
    assert list(stream_texts([tmp_path / "latin.txt"], errors="replace")) == ["fine\n", "caf\ufffd\n"]


def test_a_pipe_is_refused_by_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="got a pipe or device; save what comes from it as a file"):
        list(stream_texts([tmp_path / "pipe"]))
