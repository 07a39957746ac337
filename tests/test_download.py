"""Tests of downloading against a local server that truncates, stalls, fails and lies; nothing partial looks whole."""

import hashlib
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weebill.download import RemoteFile, cache_folder, checksum_of, download
from weebill.errors import ArtifactError, DataError, MissingExtraError

pytest.importorskip("requests")
pytest.importorskip("filelock")

BODY = bytes(range(256)) * 4000  # 1 MB
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request as the next of `answers` says, the last one for good; keeps the headers it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.answers, self.requests = BODY, '"v1"', ["whole"], []
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def remote(self, checksum=None):
        return RemoteFile(self.url, "file.bin", checksum)

    def ranges(self):
        return [headers.get("Range") for headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.close_connection = True
        if answer.isdecimal():
            self.send_response(int(answer))
            self.send_header("Content-Length", "0")
            if answer == "503":
                self.send_header("Retry-After", "1")
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        if asked and answer != "no ranges" and self.headers.get("If-Range") in (server.etag, None):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        rest = server.body[start:]
        if asked and start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if answer == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(server.body) - 1}/{len(server.body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if answer == "gzip header":  # what some servers say of a .tar.gz: the bytes must stay as they are
            self.send_header("Content-Encoding", "gzip")
        if answer == "no length":  # ends where the connection does: nobody can tell when that is too early
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2])
            return
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if answer == "truncate":
            self.wfile.write(rest[: len(rest) // 2])
        elif answer == "stall":
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            time.sleep(1.5)
        else:
            self.wfile.write(rest)


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def fetched(server, folder, checksum=None):
    return download(server.remote(checksum), folder, timeout_s=0.4, pause_s=0.01)


def assert_nothing_whole(folder):
    assert not (folder / "file.bin").exists()
    assert not (folder / "file.bin.sha256").exists()


def test_downloads_once(server, tmp_path):
    seen = []
    path = download(server.remote(SHA256), tmp_path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)
    assert fetched(server, tmp_path, SHA256) == path
    assert len(server.requests) == 1
    assert server.requests[0]["User-Agent"].startswith("weebill/")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.bin", "file.bin.lock", "file.bin.sha256"]


@pytest.mark.parametrize("trouble", ["truncate", "stall"])
def test_what_breaks_off_goes_on_where_it_was(server, tmp_path, trouble):
    server.answers = [trouble, trouble, "whole"]
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    ranges = server.ranges()
    assert ranges[0] is None
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in ranges[1:]]
    assert 0 < starts[0] < starts[1] < len(BODY)
    assert {headers.get("If-Range") for headers in server.requests[1:]} == {'"v1"'}


def test_a_later_call_goes_on_too(server, tmp_path):
    server.answers = ["truncate", "404"]
    with pytest.raises(DataError, match="expected a file, got HTTP 404 Not Found; if the file has moved"):
        fetched(server, tmp_path, SHA256)
    assert_nothing_whole(tmp_path)
    half = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < half < len(BODY)
    server.answers = ["whole"]
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert server.ranges()[-1] == f"bytes={half}-"


def test_a_part_of_another_version_is_not_continued(server, tmp_path):
    server.answers = ["truncate", "404"]
    with pytest.raises(DataError):
        fetched(server, tmp_path)
    server.answers, server.etag, server.body = ["whole"], '"v2"', BODY[::-1]
    assert fetched(server, tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_without_a_strong_validator_it_starts_again(server, tmp_path, etag):
    server.answers, server.etag = ["truncate", "whole"], etag
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.answers = ["truncate", "no ranges"]
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    server.answers = ["500", "429", "whole"]
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert len(server.requests) == 3


def test_retry_after_is_kept(server, tmp_path):
    server.answers = ["503", "whole"]
    begun = time.monotonic()
    fetched(server, tmp_path, SHA256)
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(("answer", "got"), [("500", "HTTP 500"), ("stall", "ReadTimeout")])
def test_a_server_that_stays_in_trouble(server, tmp_path, answer, got):
    kept = "" if answer == "500" else "what came is kept: "
    server.answers, server.etag = [answer], ""  # no validator: every attempt starts again and gets as far
    with pytest.raises(DataError, match=f"expected a download, got {got}.*, 4 times in a row; {kept}try again later"):
        fetched(server, tmp_path, SHA256)
    assert len(server.requests) in (4, 5)
    assert_nothing_whole(tmp_path)


def test_no_server(tmp_path):
    remote = RemoteFile("http://127.0.0.1:9/file.bin", "file.bin")
    with pytest.raises(DataError, match=r"127.0.0.1:9/file.bin: expected a download, got .*refused.*--from"):
        download(remote, tmp_path, pause_s=0.01)
    assert_nothing_whole(tmp_path)


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=r"expected md5:00, as published, got md5:[0-9a-f]{32}; what came was deleted"):
        fetched(server, tmp_path, "md5:00")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.bin.lock"]


def test_a_wrong_part_is_thrown_away_once(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.bin.part.json").write_text(f'{{"url": "{server.url}", "validator": "\\"v1\\""}}')
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert server.ranges() == ["bytes=1000-", None]


@pytest.mark.parametrize(("length", "requests"), [(len(BODY), 1), (len(BODY) + 9, 2)])
def test_a_part_as_long_as_the_file_or_longer(server, tmp_path, length, requests):
    (tmp_path / "file.bin.part").write_bytes((BODY + b"too much")[:length] if length == len(BODY) else b"y" * length)
    (tmp_path / "file.bin.part.json").write_text(f'{{"url": "{server.url}", "validator": "\\"v1\\""}}')
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert len(server.requests) == requests


def test_another_range_than_asked_for(server, tmp_path):
    server.answers = ["truncate", "wrong range"]
    with pytest.raises(DataError, match=r"expected bytes from \d+ on, got Content-Range 'bytes"):
        fetched(server, tmp_path, SHA256)
    assert_nothing_whole(tmp_path)


def test_a_length_or_a_checksum_is_needed_to_tell_when_a_file_is_whole(server, tmp_path):
    server.answers = ["no length"]
    with pytest.raises(DataError, match="expected an answer that says how long the file is, as there is no checksum"):
        fetched(server, tmp_path)
    assert_nothing_whole(tmp_path)
    with pytest.raises(DataError, match=f"expected {SHA256}, as published, got sha256:"):
        fetched(server, tmp_path, SHA256)
    assert_nothing_whole(tmp_path)


def test_bytes_are_kept_as_sent(server, tmp_path):
    server.answers = ["gzip header"]
    assert fetched(server, tmp_path, SHA256).read_bytes() == BODY
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_without_a_published_checksum_the_first_one_counts(server, tmp_path):
    path = fetched(server, tmp_path)
    assert checksum_of(path) == SHA256
    path.write_bytes(b"changed on disk")
    assert fetched(server, tmp_path).read_bytes() == BODY
    path.unlink()
    server.body = BODY + b"!"
    with pytest.raises(DataError, match=r"expected sha256:.*, as kept in .*file\.bin\.sha256 from the first download"):
        fetched(server, tmp_path)
    assert not path.exists()


def test_two_at_a_time_download_once(server, tmp_path):
    threads = [threading.Thread(target=fetched, args=(server, tmp_path, SHA256)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_folder_that_is_a_file(server, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArtifactError, match=r"taken/file.bin: expected a place to keep the download"):
        fetched(server, tmp_path / "taken")


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"downloading needs filelock.*weebill\[fetch\]"):
        download(RemoteFile("http://127.0.0.1:9/x", "x"), tmp_path)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("WEEBILL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    assert cache_folder(None) == tmp_path / "weebill"
    monkeypatch.setenv("WEEBILL_CACHE", os.fspath(tmp_path / "mine"))
    assert cache_folder(None) == tmp_path / "mine"
    assert cache_folder(tmp_path / "option") == tmp_path / "option"
