"""The road in JavaScript against the road in Python, in headless Chromium; and the folder that is exported.

What runs a model needs onnxruntime-web: the dist folder that WEEBILL_ONNXRUNTIME_WEB names, or the one in the cache.
"""

import contextlib
import functools
import http.server
import json
import os
import random
import shutil
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import weebill
from chromium import CHROMIUM, opened, read, wait_for_answer
from oracles.word_table import word_table_predictor
from weebill import templates, web_export
from weebill.artifact import find_model
from weebill.cli import app
from weebill.decoding import TagGrammar
from weebill.errors import ArtifactError, ConfigError
from weebill.golden import GOLDEN_TEXTS
from weebill.neighbours import Neighbours
from weebill.schema import ModelOutput, Utterance
from weebill.tags import end_of_words, is_inside_word
from weebill.tokenizer import Tokenizer
from weebill.web_export import RUNTIME, RUNTIME_VERSION, export_web, web_tokenizer

CACHED = Path.home() / ".cache" / "weebill" / "onnxruntime-web" / "dist"
DIST = Path(os.environ.get("WEEBILL_ONNXRUNTIME_WEB", CACHED))
needs_runtime = pytest.mark.skipif(
    not (CHROMIUM and all((DIST / name).is_file() for name in RUNTIME)),
    reason=f"no Chromium, or no onnxruntime-web {RUNTIME_VERSION} (WEEBILL_ONNXRUNTIME_WEB names its dist folder)",
)
HARD = [
    *GOLDEN_TEXTS,
    " ", "  a  b  ", "\ta\n\n b\r\n", "a\u00a0b\u3000c\u2028d\x85e\x1cf\ufeffg", "\0\x01\x7f",
    "it's IT'S we'Ll they'VE don'ſ", "1234567 ½ ² Ⅷ ١٢٣ 一二", "Ünïcode ΣΑΣ ΟΔΟΣ. İstanbul STRASSE ẞ ﬁ",
    "e\u0301\u0323 q\u0307\u0323 \u0344 각 ᄀ\u1161\u11a8 \u0958 \u2126 \u212b", "👩‍👩‍👧‍👦🏳️‍🌈👍🏽 1️⃣🇪🇺",
    "\ud83d x \udc00\ud83d",
    "zero\u200bwidth\u200djoiner\ufe0f", "العربية مُشَكَّلَة עִבְרִית", "क्षत्रिय ไทย",
    "[CLS] [MASK] <s>", "-" * 300, "w" * 900, "5 p.m.", "at 9.?! ",
]  # fmt: skip


def random_texts(count):
    """Return texts of characters that tokenizers stumble over, as a browser has them: pairs of surrogates are one."""
    rng = random.Random(7)
    alphabet = [
        *"aAbB  \t\n'.,!19éÉßΣσςİıſ각가ᄀ🎵👩אםا½Ⅷक", *"\u0301\u0323\u0345\u0334\u1161\u11a8\u200d\ufe0f\u064e\u094d",
        "'s", "'LL", "\ud83d", "\udc69", "\x1c", "\x85", "\ufeff", "\u3000",
    ]  # fmt: skip
    texts = ("".join(rng.choices(alphabet, k=rng.randint(1, 24))) for _ in range(count))
    return [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") for text in texts]


def units(text):
    """Return a text as UTF-16 code units, for JSON carries no lone surrogates."""
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").tolist()


@contextlib.contextmanager
def serving(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def javascript(browser):
    """A blank page that has the module as `weebill`, and `text` to put code units together."""
    with serving(Path(weebill.__file__).parent / "assets") as address:
        page = browser.new_page()
        page.goto(f"{address}/weebill.js")
        page.evaluate("""async () => {
            window.weebill = await import("/weebill.js");
            window.text = units => String.fromCharCode(...units);
        }""")
        yield page


@pytest.fixture(scope="module")
def composing():
    texts = [u.text for u in templates.generate()[0][:300]] + HARD
    texts = [t.encode("utf-8", "replace").decode() for t in texts]
    return Tokenizer.train(texts, 600, split_pattern="gpt4", normalizers=("nfc", "lowercase"), processes=1)


@pytest.mark.parametrize("max_length", [None, 8])
@pytest.mark.parametrize("kind", ["packaged", "composing"])
def test_same_ids_and_offsets(kind, max_length, javascript, composing):
    tokenizer = composing if kind == "composing" else Tokenizer.packaged()
    texts = HARD + random_texts(600)
    found = javascript.evaluate(
        """([settings, texts, most]) => {
            const tokenizer = new weebill.Tokenizer(settings);
            return texts.map(units => tokenizer.encode(text(units), most ?? Infinity));
        }""",
        [web_tokenizer(tokenizer), [*map(units, texts)], max_length],
    )
    for text, got in zip(texts, found, strict=True):
        expected = tokenizer.encode(text, max_length)
        offsets = [list(span) for span in expected.offsets]
        assert got == {"ids": expected.token_ids, "offsets": offsets, "dropped": expected.dropped_tokens}, ascii(text)


def test_a_long_word_is_merged_soon(javascript):
    tokenizer = Tokenizer.packaged()
    word = "".join(random.Random(3).choices("etaoins", k=10_000))
    ids, took_ms = javascript.evaluate(
        """([settings, word]) => {
            const tokenizer = new weebill.Tokenizer(settings), started = performance.now();
            return [tokenizer.encode(word).ids, performance.now() - started];
        }""",
        [web_tokenizer(tokenizer), word],
    )
    assert ids == tokenizer.encode(word).token_ids
    assert took_ms < 5_000  # of a busy machine; one that looks through the whole word for each merge takes longer


def test_same_words(javascript):
    """Letters, digits and combining marks, of all characters that Python's Unicode knows."""
    got = javascript.evaluate("""() => Array.from({length: 0x110000}, (_, i) => i)
        .filter(i => (i < 0xd800 || i >= 0xe000) && weebill.isInWord(String.fromCodePoint(i))).join(" ")""")
    inside = set(map(int, got.split()))
    known = (i for i in range(0x110000) if unicodedata.category(chr(i)) not in ("Cn", "Cs"))
    differing = [hex(i) for i in known if (i in inside) != is_inside_word("a" + chr(i), 1)]
    assert differing == []
    texts = [
        t + end for t in ["at 9", "5 p.m", "x", "", "a b", "½", "É", "e\u0301"] for end in (".", "?!", ".\n ", "…\x1c")
    ]
    texts += HARD + random_texts(300)
    ends = javascript.evaluate(
        "all => all.map(units => weebill.endOfWords(Array.from(text(units))))", [*map(units, texts)]
    )
    assert ends == [end_of_words(text) for text in texts]


def test_same_tags_of_random_logits(javascript):
    rng = np.random.default_rng(5)
    tags = ["I-a", "O", "B-b", "I-b", "B-a", "B-c", "I-c"]
    grammar, cases, expected = TagGrammar(tags), [], []
    for _ in range(400):
        logits_TL = rng.normal(size=(rng.integers(0, 9), len(tags))).astype(np.float32)
        if rng.random() < 0.3:
            logits_TL = np.round(logits_TL)  # many are equally good
        continues = (rng.random(len(logits_TL)) < 0.4).tolist()
        expected += grammar.decode(logits_TL[None], [range(len(logits_TL))], [continues])
        cases.append([logits_TL.tolist(), continues])
    got = javascript.evaluate(
        "([tags, cases]) => { const g = new weebill.TagGrammar(tags); return cases.map(c => g.decode(...c)); }",
        [tags, cases],
    )
    assert got == expected


@pytest.mark.parametrize(("whole_words", "touching"), [(False, None), (True, None), (True, []), (False, [])])
def test_same_entities_of_random_logits(whole_words, touching, javascript):
    predictor = word_table_predictor()
    predictor.whole_words, predictor._grammar = whole_words, TagGrammar(predictor.tags, touching=touching)
    rng = np.random.default_rng(6)
    texts, cases, expected = HARD + random_texts(200), [], []
    for text in texts:
        batch = predictor.tokenizer.encode_batch([text], 32)
        logits_1TL = rng.normal(size=(*batch.input_ids_BT.shape, len(predictor.tags))).astype(np.float32) * 2
        nothing = np.zeros((1, len(predictor.intents)), np.float32)
        [prediction] = predictor.decode([text], batch, ModelOutput(np.zeros((1, 4), np.float32), nothing, logits_1TL))
        expected.append([(e.start, e.end, e.label, pytest.approx(e.score, abs=1e-6)) for e in prediction.entities])
        cases.append([units(text), batch.encodings[0].offsets, logits_1TL[0].tolist()])
    got = javascript.evaluate(
        """([tags, cases, words, touching]) => {
            const grammar = new weebill.TagGrammar(tags, touching);
            return cases.map(([units, ...rest]) => weebill.decodeEntities(text(units), ...rest, grammar, words));
        }""",
        [predictor.tags, cases, whole_words, touching],
    )
    assert [[(e["start"], e["end"], e["label"], e["score"]) for e in found] for found in got] == expected


# -- the folder


EXAMPLES = [Utterance("play jazz", "play_music"), Utterance("wake me at nine", "alarm_set")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert export_web("tiny", folder / "some" / "where", [], DIST, examples=EXAMPLES).ok
    with serving(folder) as address:
        yield folder / "some" / "where", f"{address}/some/where/"


@needs_runtime
def test_the_page_reads_what_python_reads(browser, site):
    predictor = weebill.load("tiny", on_overflow="truncate")
    texts = [u.text for u in templates.generate()[0][::20][:200]] + [t for t in HARD if t]
    near = Neighbours(predictor, EXAMPLES)
    with opened(browser, site[1]) as page:
        page.wait_for_selector("#cards:not([hidden])", timeout=120_000)
        got = page.evaluate(
            """async all => {
                const found = [];
                for (const units of all) found.push(await road.inspect(String.fromCharCode(...units)));
                return found;
            }""",
            [*map(units, texts)],
        )
    for text, answer, prediction, vector_D in zip(
        texts, got, predictor.parse(texts, False), predictor.embed(texts, False), strict=True
    ):
        at = [len(text[:i].encode("utf-16-le", "surrogatepass")) // 2 for i in range(len(text) + 1)]
        encoding = predictor.tokenizer.encode(text, predictor.max_seq_len)
        assert [token["id"] for token in answer["tokens"]] == encoding.token_ids
        assert [(t["start"], t["end"]) for t in answer["tokens"]] == [(at[a], at[b]) for a, b in encoding.offsets]
        assert answer["dropped_tokens"] == encoding.dropped_tokens
        parse = answer["parse"]
        assert parse["intent"] == {"name": prediction.intent, "confidence": pytest.approx(prediction.score, abs=1e-5)}
        assert [(e["start"], e["end"], e["entity"], e["confidence_entity"]) for e in parse["entities"]] == [
            (at[e.start], at[e.end], e.label, pytest.approx(e.score, abs=1e-5)) for e in prediction.entities
        ]
        assert [n["similarity"] for n in answer["neighbours"]] == pytest.approx(
            [similarity for _, similarity in near.nearest(vector_D, 5)], abs=2e-4
        )


@needs_runtime
def test_the_page_without_a_server(browser, site):
    with opened(browser, site[1]) as page:
        text = "🎵 wake me up at nine am on friday"
        read(page, text)
        [prediction] = weebill.load("tiny").parse([text])
        assert page.locator("#first").text_content() == prediction.intent
        marked = [text[e.start : e.end] for e in prediction.entities]
        assert marked and page.locator("#under mark").all_text_contents() == marked
        assert {*page.locator("#near .text").all_text_contents()} == {u.text for u in EXAMPLES}
        assert not page.get_by_role("navigation").is_visible() and not page.locator("#endpoints").is_visible()
        assert "browser" in page.locator("footer").text_content()
        again = page.evaluate("code => eval(`(async () => { ${code.replace('await road.', 'return road.')} })()`)",
                              page.locator("#code").text_content())  # fmt: skip
        assert again["parse"] == json.loads(page.locator("#answer").text_content())["parse"]
        box = page.get_by_role("textbox", name="Type a sentence")
        box.fill("")
        box.press_sequentially("play jazz at nine am", delay=15)
        wait_for_answer(page, "play jazz at nine am")
        box.fill("a" * 10_001)
        page.wait_for_selector("#trouble:not([hidden])")
        assert "at most 10000 characters, got one of 10001" in page.get_by_role("alert").text_content()
        read(page, "nine am")
        assert not page.get_by_role("alert").is_visible()


@needs_runtime
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, browser, site):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with opened(browser, site[1], color_scheme=scheme) as page:
        read(page, "wake me up at nine am")
        found = axe.Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()


@needs_runtime
def test_a_model_that_reads_otherwise_is_refused(browser, site, tmp_path):
    shutil.copytree(site[0], tmp_path / "other")
    path = tmp_path / "other" / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    model["golden"][2]["intent"] = "play_music"
    path.write_text(json.dumps(model), encoding="utf-8")
    with serving(tmp_path) as address, opened(browser, f"{address}/other/") as page:
        page.wait_for_selector("#trouble:not([hidden])", timeout=120_000)
        assert 'otherwise than Python: expected intent "play_music"' in page.get_by_role("alert").text_content()
        assert not page.locator("#cards").is_visible()


@needs_runtime
def test_an_export_replaces_an_older_one_only(site, tmp_path):
    folder = tmp_path / "web"
    for examples in ([], EXAMPLES):
        assert export_web("tiny", folder, [], DIST, examples=examples).ok
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {"index.html", "weebill.js", "model.json", "model.onnx", "examples.f32"} | {
        f"onnxruntime/{here}" for here, _ in RUNTIME.values()
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="expected a new or empty folder, or an older export for the browser"):
        export_web("tiny", tmp_path / "mine", [], DIST)
    with pytest.raises(
        ConfigError, match=r"--int8: expected a model with torch's weights, got .*which is ONNX already"
    ):
        export_web("tiny", tmp_path / "new", [], DIST, int8=True)


def test_a_missing_runtime_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"expected onnxruntime-web {RUNTIME_VERSION}.*npm pack onnxruntime-web@"):
        export_web("tiny", tmp_path / "new", [], None)
    with pytest.raises(ConfigError, match=r"expected the dist folder .* without ort\.wasm\.bundle\.min\.mjs; get it"):
        export_web("tiny", tmp_path / "new", [], tmp_path)
    for name in RUNTIME:
        (tmp_path / name).write_text("something else")
    with pytest.raises(ConfigError, match="with other content: another version, or a damaged copy; get it with"):
        export_web("tiny", tmp_path / "new", [], tmp_path)
    assert not (tmp_path / "new").exists()


def test_tokenizers_that_do_not_run_in_a_page():
    with pytest.raises(ArtifactError, match=r"got one with the pattern '.a-z..', which JavaScript may read otherwise"):
        web_tokenizer(Tokenizer({}, "[a-z]+"))
    with pytest.raises(ArtifactError, match="got one with the tokenizer of a BERT, which does not run in the page"):
        web_tokenizer(object())


def test_options_of_other_formats_are_refused(tmp_path):
    command = ["export", str(find_model("tiny")), "--output", str(tmp_path / "new")]
    found = CliRunner().invoke(app, [*command, "--runtime", str(tmp_path)])
    assert "--runtime: expected --format web, got onnx" in str(found.exception)
    found = CliRunner().invoke(app, [*command, "--format", "web"])
    assert "which runs the model in the browser, got no folder of it" in str(found.exception)


def test_what_the_page_does_not_know_is_refused():
    predictor = weebill.load()
    predictor.intent_threshold = 0.5
    with pytest.raises(ArtifactError, match="expected a model without a CRF, an intent threshold or several intents"):
        web_export._files(predictor, find_model("tiny"), "tiny", [])
