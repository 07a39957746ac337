"""docs/errors.md says what the code says, and every error says what to do."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "errors.py"))
PASSED_ON = {("hf_tokenizer", "‹path›: ‹error›"), ("serve", "Overloaded: ‹error›")}  # messages that have their own row


def test_the_page_is_of_this_code():
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == SCRIPT["page"](), "run: make errors"


def test_every_error_has_a_place_on_the_page_and_a_remedy():
    raised = SCRIPT["raised"]()
    assert len(raised) > 300
    modules = {name for names in SCRIPT["AREAS"].values() for name in names.split()}
    assert {one.module for one in raised} <= modules
    without = [f"{one.module}.py:{one.line}: {one.cause}" for one in raised
               if not one.remedy and (one.module, one.cause) not in PASSED_ON]  # fmt: skip
    assert without == []


def test_what_an_error_is_made_of():
    texts = {(one.module, one.kind): one for one in SCRIPT["raised"]() if "standard input" in one.cause}
    [(place, one)] = texts.items()
    assert place == ("cli", "ConfigError")
    assert one.cause == "expected texts, --input FILE or text on standard input, got nothing"
    assert one.remedy == "add one of them"
