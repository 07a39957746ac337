"""The server in process: every endpoint's shape, every documented refusal, and a server that stays up after it."""

import asyncio
import base64
import json
import logging
import socket

import httpx
import numpy as np
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from prometheus_client.parser import text_string_to_metric_families

from oracles.word_table import MAX_SEQ_LEN, expected_entities, word_table_predictor
from weebill import http_guard
from weebill.errors import ConfigError
from weebill.geometry import unit_rows
from weebill.limits import Limits
from weebill.neighbours import Neighbours
from weebill.predictor import Predictor
from weebill.schema import Entity, ModelOutput, Utterance
from weebill.serve import bind, create_app

TEXT = "wake me 🎵 at nine am"
LONG = "nine " * (MAX_SEQ_LEN + 8)
LIMITS = Limits(max_body_bytes=200_000, max_texts=100, max_text_chars=1_000, max_waiting_texts=150)
EXAMPLES = [Utterance("play jazz", "play_music", (Entity(5, 9, "genre"),)), Utterance("wake me", "set_alarm")]


@pytest.fixture(scope="module")
def app():
    predictor = word_table_predictor()
    return create_app(predictor, "table", examples=Neighbours(predictor, EXAMPLES), limits=LIMITS)


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://weebill")


def ask(app, method, path, body=None, **options):
    """Return the response to one request; `body` is sent as JSON, bytes and iterators as they are."""

    async def once():
        async with client(app) as asking:
            if isinstance(body, dict | list):
                return await asking.request(method, path, json=body, **options)
            headers = {"Content-Type": "application/json"} | options.pop("headers", {})
            return await asking.request(method, path, content=body, headers=headers, **options)

    return asyncio.run(once())


def test_parse_answers_in_the_shape_of_rasa(app):
    answer = ask(app, "POST", "/model/parse", {"text": TEXT}).json()
    assert answer["text"] == TEXT and answer["dropped_tokens"] == 0
    assert answer["intent"] == answer["intent_ranking"][0] and answer["intent"]["name"] == "set_alarm"
    assert [i["name"] for i in answer["intent_ranking"]] == ["set_alarm", "play_music", "other"]
    assert sum(i["confidence"] for i in answer["intent_ranking"]) == pytest.approx(1, abs=1e-5)
    assert [(e["start"], e["end"], e["entity"]) for e in answer["entities"]] == expected_entities(TEXT)
    assert [e["value"] for e in answer["entities"]] == ["🎵", "nine am"]


def test_utf16_offsets_are_those_of_javascript(app):
    answer = ask(app, "POST", "/model/parse", {"text": TEXT, "offsets": "utf16"}).json()
    units = TEXT.encode("utf-16-le")
    for entity in answer["entities"]:
        assert units[2 * entity["start"] : 2 * entity["end"]].decode("utf-16-le") == entity["value"]


def test_embed_answers_in_the_shape_of_text_embeddings_inference(app):
    expected = word_table_predictor().embed(["nine am", TEXT])
    plain = ask(app, "POST", "/embed", {"inputs": ["nine am", TEXT], "normalize": False}).json()
    assert np.array_equal(np.array(plain, np.float32), expected)
    unit = ask(app, "POST", "/embed", {"inputs": ["nine am", TEXT]}).json()
    assert np.allclose(unit, unit_rows(expected), atol=1e-6)
    assert ask(app, "POST", "/embed", {"inputs": "nine am"}).json() == [unit[0]]


@pytest.mark.parametrize("encoding_format", [openai.NOT_GIVEN, "float", "base64"], ids=str)
def test_the_openai_client_gets_its_embeddings(app, encoding_format):
    texts = [f"nine am {i}" for i in range(50)]

    async def create():
        async with openai.AsyncOpenAI(base_url="http://weebill/v1", api_key="any", http_client=client(app)) as asking:
            return await asking.embeddings.create(model="any", input=texts, encoding_format=encoding_format)

    answer = asyncio.run(create())
    vectors = [row.embedding for row in answer.data]
    if encoding_format == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
    predictor = word_table_predictor()
    assert np.allclose(vectors, unit_rows(predictor.embed(texts)), atol=1e-6)
    assert [row.index for row in answer.data] == list(range(50)) and answer.model == "table"
    assert answer.usage.prompt_tokens == sum(len(predictor.tokenizer.encode(t).token_ids) for t in texts)


def test_the_openai_client_raises_its_own_errors(app):
    async def create(**arguments):
        async with openai.AsyncOpenAI(base_url="http://weebill/v1", api_key="any", http_client=client(app)) as asking:
            return await asking.embeddings.create(model="any", **arguments)

    with pytest.raises(openai.UnprocessableEntityError, match="token ids of another model's tokenizer") as error:
        asyncio.run(create(input=[[1, 2], [3]]))
    assert error.value.code == "Validation" and error.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="of length 0"):
        asyncio.run(create(input=""))


def test_inspect_shows_the_work(app):
    answer = ask(app, "POST", "/inspect", {"text": TEXT}).json()
    encoding = word_table_predictor().tokenizer.encode(TEXT)
    assert [(t["id"], (t["start"], t["end"])) for t in answer["tokens"]] == list(
        zip(encoding.token_ids, encoding.offsets, strict=True)
    )
    assert [t["special"] for t in answer["tokens"] if t["special"]] == ["[CLS]", "[SEP]"]
    assert answer["parse"] == ask(app, "POST", "/model/parse", {"text": TEXT}).json()
    near = ask(app, "POST", "/inspect", {"text": "play jazz"}).json()["neighbours"]
    assert near[0] == {"text": "play jazz", "intent": "play_music", "similarity": 1.0}
    assert near[1]["text"] == "wake me" and near[1]["similarity"] < 1


def test_info_health_and_metrics(app):
    assert ask(app, "GET", "/health").json() == {"status": "ok"}
    assert ask(app, "HEAD", "/health").status_code == 200
    assert ask(app, "POST", "/health").status_code == 405
    info = ask(app, "GET", "/info").json()
    assert info["limits"]["max_texts"] == 100 and info["entities"] == ["genre", "time"] and info["examples"] == 2
    assert info["suggestions"] == ["play jazz", "wake me"]
    ask(app, "POST", "/embed", {"inputs": ["a"] * 70})
    ask(app, "GET", "/secret-path")
    families = text_string_to_metric_families(ask(app, "GET", "/metrics").text)
    samples = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert samples["weebill_requests_total", "/info", "200"] >= 1
    assert samples["weebill_requests_total", "404", "other"] >= 1
    assert samples["weebill_batch_texts_count",] >= 2 and samples["weebill_batch_texts_sum",] >= 70
    assert samples["weebill_waiting_texts",] == 0
    assert not any("secret" in str(key) for key in samples)


def test_a_long_text_is_read_whole_or_its_beginning_or_refused(app):
    predictor = word_table_predictor()
    answer = ask(app, "POST", "/embed", {"inputs": ["a", LONG]}).json()
    assert np.allclose(answer, unit_rows(predictor.embed(["a", LONG])), atol=1e-6)
    tokens = len(predictor.tokenizer.encode(LONG).token_ids)
    cut = predictor.tokenizer.encode_batch([LONG], MAX_SEQ_LEN)
    refusing = word_table_predictor()
    refusing.on_overflow = "error"
    for policy, served in (("window", app), ("error", create_app(refusing))):
        assert ask(served, "GET", "/info").json()["on_overflow"] == policy
        answer = ask(served, "POST", "/model/parse", {"text": LONG, "truncate": True}).json()
        assert answer["dropped_tokens"] == tokens - MAX_SEQ_LEN
        vector = ask(served, "POST", "/embed", {"inputs": LONG, "truncate": True}).json()[0]
        assert np.allclose(vector, unit_rows(predictor.backend.run(cut).sentence_embedding_BD)[0], atol=1e-6)
        for path, body in (("/model/parse", {"text": LONG}), ("/embed", {"inputs": ["a", LONG]})):
            answer = ask(served, "POST", path, body)
            if policy == "window":
                assert answer.status_code == 200
            else:
                assert answer.status_code == 413
                assert "expected texts of at most 32 tokens, got one of " in answer.json()["error"]
    assert ask(app, "POST", "/model/parse", {"text": LONG}).json()["dropped_tokens"] == 0


EMBED = "/embed"
BAD_INPUT = {
    "invalid JSON": (EMBED, b'{"inputs": ', 400, "InvalidJson", "expected a JSON object"),
    "no body": (EMBED, b"", 422, "Validation", "expected a value, got none"),
    "not UTF-8": (EMBED, b'{"inputs": "\xff"}', 400, "InvalidJson", "in UTF-8"),
    "nested too deep": (EMBED, b'{"inputs": ' + b"[" * 99_000, 400, "InvalidJson", "expected a JSON object"),
    "a number too long": (EMBED, b'{"inputs": ' + b"9" * 9_000 + b"}", 400, "InvalidJson", "expected a JSON object"),
    "a list": (EMBED, b'["a"]', 422, "Validation", "expected a JSON object"),
    "no list of texts": (EMBED, {"inputs": {"a": 1}}, 422, "Validation", "inputs: expected a string or a list of "),
    "null": (EMBED, {"inputs": None}, 422, "Validation", "got null"),
    "null among texts": (EMBED, {"inputs": ["a", None]}, 422, "Validation", "expected a string, got null"),
    "token ids": (EMBED, {"inputs": [17, 3]}, 422, "Validation", "token ids of another model's tokenizer"),
    "lists of token ids": (EMBED, {"inputs": [[17, 3]]}, 422, "Validation", "check_embedding_ctx_length=False"),
    "no texts": (EMBED, {"inputs": []}, 400, "Empty", "expected at least one text, got an empty list"),
    "a text of length 0": (EMBED, {"inputs": ["a", ""]}, 400, "Empty", "expected a text, got one of length 0"),
    "a lone surrogate": (EMBED, b'{"inputs": "ab\\ud83d"}', 422, "Tokenizer", "got a lone surrogate at 2"),
    "a word for a flag": (EMBED, {"inputs": "a", "truncate": "yes"}, 422, "Validation", "truncate: "),
    "a misspelt field": (
        EMBED,
        {"inputs": "a", "trunctate": True},
        422,
        "Validation",
        "trunctate: expected a field of",
    ),
    "a missing field": (EMBED, {"input": "a"}, 422, "Validation", "inputs: expected a value, got none"),
    "too many texts": (EMBED, {"inputs": ["a"] * 101}, 413, "TooLarge", "at most 100 texts a request, got 101"),
    "too long a text": (EMBED, {"inputs": "a" * 1_001}, 413, "TooLarge", "at most 1000 characters, got one of 1001"),
    "a large body": (EMBED, b" " * 10_000_000, 413, "TooLarge", "expected a body of at most 200000 bytes"),
    "numbers for a text": ("/model/parse", {"text": 7}, 422, "Validation", "text: expected a string, got a number"),
    "an empty text": ("/model/parse", {"text": ""}, 400, "Empty", "got one of length 0; send one that says something"),
    "unknown offsets": ("/model/parse", {"text": "a", "offsets": "utf8"}, 422, "Validation", "'codepoints' or 'utf16'"),
    "an unknown path": ("/model/train", {"text": "a"}, 404, "NotFound", "expected one of the paths in /docs"),
    "a wrong method": ("/info", {}, 405, "MethodNotAllowed", "expected GET, got POST"),
}


@pytest.mark.parametrize("case", BAD_INPUT, ids=str)
def test_bad_input_gives_the_documented_refusal(case, app):
    path, body, status, error_type, message = BAD_INPUT[case]
    answer = ask(app, "POST", path, body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, error_type), answer.text
    assert message in answer.json()["error"]
    assert set(answer.json()) == {"error", "error_type"}
    assert ask(app, "POST", "/model/parse", {"text": TEXT}).json()["intent"]["name"] == "set_alarm"


def test_100_000_texts_are_refused_quickly():
    app = create_app(word_table_predictor())
    for value in ("a", "", 7, None, "\ud800"):
        body = json.dumps({"inputs": [value] * 100_000}).encode()
        answer = ask(app, "POST", "/embed", body)
        assert answer.status_code == (413 if value == "a" else 400 if value == "" else 422)
        assert answer.elapsed.total_seconds() < 2


def test_what_would_never_fit_the_queue_is_too_large():
    app = create_app(word_table_predictor(), limits=Limits(max_waiting_texts=10))
    assert ask(app, "POST", "/embed", {"inputs": ["a"] * 11}).json()["error_type"] == "TooLarge"
    assert ask(app, "POST", "/embed", {"inputs": ["a"] * 10}).status_code == 200


def test_a_body_in_chunks_has_the_same_limit(app):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(160):
            sent += 1
            yield b" " * 65_536

    answer = ask(app, "POST", "/embed", chunks())
    assert answer.status_code == 413 and answer.headers["connection"] == "close"
    assert sent == 160  # read to its end: a client that is still sending does not read an answer


def test_a_body_without_an_end_is_not_read_for_ever(app, monkeypatch):
    monkeypatch.setattr(http_guard, "DRAIN_BYTES", 1_000_000)

    async def chunks():
        while True:
            yield b" " * 65_536

    assert ask(app, "POST", "/embed", chunks()).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(app, monkeypatch):
    monkeypatch.setattr(http_guard, "BODY_SECONDS", 0.05)

    async def chunks():
        yield b'{"inputs":'
        await asyncio.sleep(60)

    answer = ask(app, "POST", "/embed", chunks())
    assert (answer.status_code, answer.json()["error_type"]) == (408, "Timeout")


def test_overload_is_refused_and_others_are_answered(app):
    texts = [f"nine am {i}" for i in range(100)]

    async def ask_many():
        async with client(app) as asking:
            return await asyncio.gather(*(asking.post("/embed", json={"inputs": texts}) for _ in range(8)))

    answers = asyncio.run(ask_many())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = answers[statuses.index(429)]
    assert refused.headers["retry-after"] == "1" and refused.json()["error_type"] == "Overloaded"
    expected = unit_rows(word_table_predictor().embed(texts))
    for answer in answers:
        if answer.status_code == 200:
            assert np.allclose(answer.json(), expected, atol=1e-6)


def test_no_response_is_lost_or_mixed_up(app):
    texts = [f"play jazz at nine {i}" if i % 3 else f"🎵 wake {i}" for i in range(150)]
    expected = unit_rows(word_table_predictor().embed(texts))

    async def ask_all():
        async with client(app) as asking:
            parsed = [asking.post("/model/parse", json={"text": text}) for text in texts[:75]]
            embedded = [asking.post("/embed", json={"inputs": text}) for text in texts[75:]]
            return await asyncio.gather(*parsed, *embedded)

    for i, answer in enumerate(asyncio.run(ask_all())):
        if i < 75:
            found = [(e["start"], e["end"], e["entity"]) for e in answer.json()["entities"]]
            assert answer.json()["text"] == texts[i] and found == expected_entities(texts[i])
        else:
            assert np.allclose(answer.json()[0], expected[i], atol=1e-6)


def test_a_token_opens_what_it_guards(caplog):
    app = create_app(word_table_predictor(), token="geheim-ü")
    for given in (None, "Bearer geheim", "Basic geheim-ü", "Bearer geheim-üü", "Bearer"):
        headers = {"Authorization": given.encode()} if given else {}
        for method, path, body in (
            ("POST", "/embed", {"inputs": "a"}),
            ("GET", "/info", None),
            ("GET", "/metrics", None),
        ):
            answer = ask(app, method, path, body, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert ask(app, "POST", "/v1/embeddings", {}).json()["error"]["code"] == "Unauthorized"
    good = {"Authorization": "bearer geheim-ü".encode()}
    assert ask(app, "POST", "/embed", {"inputs": "a"}, headers=good).status_code == 200
    assert ask(app, "GET", "/metrics", headers=good).status_code == 200
    for path in ("/", "/health", "/openapi.json", "/docs"):
        assert ask(app, "GET", path).status_code == 200
    paths = ask(app, "GET", "/openapi.json").json()["paths"]
    assert "security" in paths["/embed"]["post"] and "security" not in paths["/health"]["get"]


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_an_empty_token_is_refused(token):
    with pytest.raises(ConfigError, match="token: expected one, got an empty one"):
        create_app(word_table_predictor(), token=token)


def test_white_space_around_a_token_is_none_of_it():
    app = create_app(word_table_predictor(), token="geheim\n")
    assert ask(app, "GET", "/info", headers={"Authorization": "Bearer geheim"}).status_code == 200


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "256.0.0.1", "192.0.2.1"])
def test_an_address_that_is_none_is_refused(host):
    with pytest.raises(ConfigError, match=f"expected a free address to listen on, got {host} port 0: .*; choose"):
        bind(host, 0)


def test_an_encoder_without_heads_embeds_and_does_not_parse():
    table = word_table_predictor()
    run = table.backend.run
    table.backend.run = lambda batch: ModelOutput(run(batch).sentence_embedding_BD, None, None)
    app = create_app(Predictor(table.tokenizer, table.backend, MAX_SEQ_LEN, table.embedding_dim))
    assert ask(app, "POST", "/embed", {"inputs": "a"}).status_code == 200
    answer = ask(app, "POST", "/model/parse", {"text": "a"})
    assert answer.status_code == 404 and "only a model with heads has /model/parse" in answer.json()["error"]
    assert ask(app, "GET", "/status").json()["error"].endswith("got another one; take one of those")
    assert ask(app, "POST", "/inspect", {"text": "a"}).json()["parse"] is None


def test_texts_are_not_logged_even_when_the_model_fails(caplog):
    predictor = word_table_predictor()

    def fails(batch):
        raise ValueError(f"cannot read {predictor.tokenizer.decode(batch.encodings[0].token_ids)}")

    app = create_app(predictor)
    with caplog.at_level(logging.DEBUG):
        assert ask(app, "POST", "/embed", {"inputs": "my secret"}).status_code == 200
        predictor.backend.run = fails
        answer = ask(app, "POST", "/embed", {"inputs": "my secret"})
        ask(app, "POST", "/embed", {"inputs": ["my secret", 7]})
        ask(app, "POST", "/embed", b'{"inputs": "my secret"')
    assert (answer.status_code, answer.json()["error_type"]) == (500, "Internal")
    logged = [r for r in caplog.records if not r.name.startswith("httpx") and r.name != "asyncio"]
    assert [r.getMessage().splitlines()[0] for r in logged] == ["ValueError on POST /embed"]
    assert "oracles" not in answer.text and "secret" not in answer.text
    assert all("secret" not in r.getMessage() and not r.exc_info for r in logged)


def test_answers_are_sent_at_once():
    async def no_delay() -> int:
        accepted = asyncio.get_running_loop().create_future()
        with bind("127.0.0.1", 0) as bound:
            server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=bound)
            _, client = await asyncio.open_connection(*bound.getsockname())
            writer = await accepted
            client.close()
            writer.close()
            server.close()
            return writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(no_delay())  # else the body of an answer waits 40 ms for the client's word on its head


def test_no_other_origin_is_let_in(app):
    answer = ask(app, "OPTIONS", "/embed", headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 405
    answer = ask(app, "POST", "/embed", {"inputs": "a"}, headers={"Origin": "http://evil"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    simple = ask(app, "POST", "/embed", b'{"inputs": "a"}', headers={"Content-Type": "text/plain"})
    assert simple.status_code == 422 and "Content-Type: application/json" in simple.json()["error"]


def test_the_pages_may_ask_nobody_else(app):
    for path in ("/", "/docs"):
        answer = ask(app, "GET", path)
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
        assert "unsafe" not in str(policy) and "http" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"


schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(word_table_predictor(), token=None))


@schema.parametrize()
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
          phases=[Phase.explicit, Phase.generate])  # fmt: skip
def test_the_openapi_description_is_kept(case):
    too_long = 413  # the limits are in /info: a schema does not count tokens
    response = case.call()
    if response.status_code != too_long:
        case.validate_response(response)
