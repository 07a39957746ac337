"""The server behind real sockets: hostile clients beside good ones, the command line, a stop that finishes its work."""

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from rich.console import Console

import weebill
from live_server import running
from oracles.word_table import expected_entities, word_table_predictor
from weebill.geometry import unit_rows
from weebill.limits import Limits
from weebill.serve import bind, create_app, run_server


@pytest.fixture(scope="module")
def address():
    with running(create_app(word_table_predictor())) as found:
        yield found


def test_the_openai_client_over_a_socket(address):
    texts = ["nine am", "play 🎵"]
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        answer = client.embeddings.create(model="any", input=texts)
    expected = unit_rows(word_table_predictor().embed(texts))
    assert np.allclose([row.embedding for row in answer.data], expected, atol=1e-6)


def raw(address, *parts, wait=0.0):
    """Send bytes as they are; return what comes back until the server closes or says no more."""
    host, port = address.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=5) as sending:
        for part in parts:
            sending.sendall(part)
        time.sleep(wait)
        sending.shutdown(socket.SHUT_WR)
        while part := sending.recv(65_536):
            received += part
    return received


HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE = {
    "10 MB": (HEAD + b"Content-Length: 10000000\r\n\r\n", *[b" " * 100_000] * 100),
    "10 MB in chunks": (CHUNKED, *[b"186a0\r\n" + b" " * 100_000 + b"\r\n"] * 100, b"0\r\n\r\n"),
    "less than it says": (HEAD + b"Content-Length: 1000\r\n\r\n{",),
    "a broken chunk": (CHUNKED + b"xyz\r\n",),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
    "no body": (HEAD + b"\r\n",),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n",),
    "a long header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",),
}  # fmt: skip


def test_hostile_clients_do_not_harm_others(address):
    texts = [f"play jazz at nine {i}" for i in range(60)]

    def good(text):
        answer = client.post("/model/parse", json={"text": text})
        assert answer.status_code == 200 and answer.json()["text"] == text
        found = [(e["start"], e["end"], e["entity"]) for e in answer.json()["entities"]]
        assert found == expected_entities(text)

    with httpx.Client(base_url=address, timeout=20) as client, ThreadPoolExecutor(12) as pool:
        hostile = {name: pool.submit(_status, address, parts) for name, parts in HOSTILE.items()}
        list(pool.map(good, texts))
    statuses = {name: status.result() for name, status in hostile.items()}
    assert statuses["10 MB"] == statuses["10 MB in chunks"] == 413
    assert statuses["no body"] == 422
    assert set(statuses.values()) <= {None, 400, 413, 422}


def _status(address, parts):
    """Return the status of the answer, or None when the server hung up without one."""
    try:
        line = raw(address, *parts, wait=0.1).split(b"\r\n")[0]
    except OSError:
        return None
    return int(line.split()[1]) if line else None


def test_a_client_that_leaves_gives_up_its_place():
    predictor, going_on = word_table_predictor(), threading.Event()
    run = predictor.backend.run

    def waits(batch):
        assert going_on.wait(30)
        return run(batch)

    predictor.backend.run = waits
    with running(create_app(predictor, limits=Limits(max_texts=1_000, max_waiting_texts=1_000))) as address:
        with httpx.Client(base_url=address, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/embed", json={"inputs": ["play jazz"] * 1_000})
        time.sleep(0.2)  # until the server has seen it leave
        going_on.set()
        with httpx.Client(base_url=address, timeout=30) as client:
            assert client.post("/embed", json={"inputs": ["nine am"] * 1_000}).status_code == 200
            assert "weebill_waiting_texts 0.0" in client.get("/metrics").text
    assert predictor.backend.passes <= 3 + 1_000 // 64  # of 2,000 texts they would be 32


def serve(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "weebill", "serve", *map(str, arguments)],
        stderr=subprocess.PIPE, encoding="utf-8", env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | environment,
    )  # fmt: skip


def test_a_stop_finishes_what_was_accepted(model, tmp_path):
    (tmp_path / "examples.jsonl").write_text('{"text": "wake me up", "intent": "set_alarm"}\n', encoding="utf-8")
    process = serve(model, "--port", 0, "--examples", tmp_path / "examples.jsonl", WEEBILL_TOKEN="geheim")
    try:
        line = process.stderr.readline()
        address = re.search(r"weebill: nlu at (http://127\.0\.0\.1:\d+) ", line)[1]
        with httpx.Client(base_url=address, headers={"Authorization": "Bearer geheim"}, timeout=60) as client:
            assert client.get("/info").json()["suggestions"] == ["wake me up"]
            texts = [f"wake me up at {i}" for i in range(1_500)]
            with ThreadPoolExecutor(3) as pool:
                asked = [
                    pool.submit(client.post, "/embed", json={"inputs": texts, "normalize": False}) for _ in range(3)
                ]
                while not re.search(r"^weebill_waiting_texts [1-9]\d{3}", client.get("/metrics").text, re.M):
                    assert not any(a.done() for a in asked)
                process.send_signal(signal.SIGTERM)
                answers = [a.result() for a in asked]
        _, rest = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and rest == "stopped; what was accepted is answered\n"
    expected = weebill.load(model).embed(texts)
    for answer in answers:
        assert answer.status_code == 200
        assert np.allclose(json.loads(answer.content), expected, atol=1e-5)
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_an_address_that_is_taken(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve(model, "--port", port)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error == (f"error: expected a free address to listen on, got 127.0.0.1 port {port}: Address already in use; "
                     f"choose another --host or --port\n")  # fmt: skip


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra(package):
    code = f"import sys; sys.modules['{package}'] = None; sys.argv = ['weebill', 'serve', 'x']\n" \
           "from weebill.cli import main; main()"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8",
                          env=os.environ | {"COLUMNS": "200"})  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"weebill serve needs {package}, which is not installed; run: pip install 'weebill[serve]'" in done.stderr


def test_an_empty_variable_is_no_open_door(model):
    process = serve(model, "--port", 0, WEEBILL_TOKEN="")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "expected a token, got an empty one" in said


def test_a_stop_says_what_it_broke_off(monkeypatch):
    predictor, said = word_table_predictor(), io.StringIO()
    run = predictor.backend.run

    def stopping(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)
        return run(batch)

    predictor.backend.run = stopping
    monkeypatch.setattr("weebill.serve.STOP_SECONDS", 0.5)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    log = logging.getLogger("weebill")
    monkeypatch.setattr(log, "level", log.level)  # which a server raises
    try:
        with bind("127.0.0.1", 0) as bound, ThreadPoolExecutor(1) as pool:
            address = f"http://127.0.0.1:{bound.getsockname()[1]}"
            asking = pool.submit(httpx.post, f"{address}/embed", json={"inputs": "play jazz"}, timeout=20)
            run_server(create_app(predictor), bound, Console(file=said, width=200))
            assert asking.exception() is not None or asking.result().status_code == 500
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert "stopped; 1 requests took longer than 0.5 s and were broken off" in said.getvalue()
