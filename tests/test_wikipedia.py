"""Tests of reading Wikipedia dumps: markup, redirects, namespaces, broken files, and the checksum beside the dump."""

import bz2
import gzip
import hashlib
import sys

import pytest

from weebill import wikipedia
from weebill.corpus import stream_texts
from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError

PROSE = "The '''weebill''' is the [[smallest]] [[Australia|Australian]] bird, {{convert|8|cm}} long. " * 4


def page(title, text, space=0, redirect=""):
    return f"<page><title>{title}</title><ns>{space}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def dump(pages):
    spaces = '<namespace key="0"/><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>'
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><namespaces>{spaces}</namespaces>'
        f"</siteinfo>{''.join(pages)}</mediawiki>"
    ).encode()


@pytest.fixture
def parser():
    return pytest.importorskip("mwparserfromhell")


def test_prose_is_what_is_left(parser):
    text = (
        "{{Infobox|name=x}}\n'''Oslo''' is a [[city]] in [[Norway|the north]].<ref>A book</ref>\n\n"
        "== History ==\n* old [https://example.org link]\n{| class=wikitable\n|-\n| cell\n|}\n"
        "[[Datei:x.png|thumb|A [[nested]] picture]]\n[[Star Wars: A New Hope]]\n[[Kategorie:Cities]]<math>x^2</math>"
    )
    assert wikipedia.plain_text(text, {"datei", "kategorie"}).split("\n") == [
        "Oslo is a city in the north.", "History", "old link", "Star Wars: A New Hope",
    ]  # fmt: skip


def test_articles_of_a_dump(parser, tmp_path):
    pages = [
        page("Weebill", PROSE), page("Bird", "#REDIRECT [[x]]", redirect='<redirect title="x"/>'),
        page("Talk:Weebill", PROSE, space=1), page("Stub", "Short."), page("Wren", PROSE + "[[Datei:a.png|thumb|b]]"),
    ]  # fmt: skip
    (tmp_path / "d.xml.bz2").write_bytes(bz2.compress(dump(pages)))
    found = list(wikipedia.articles(tmp_path / "d.xml.bz2"))
    assert [title for title, _ in found] == ["Weebill", "Wren"]
    assert found[0][1] == found[1][1]
    assert found[0][1].startswith("The weebill is the smallest Australian bird,")
    assert "thumb" not in found[1][1]
    target = tmp_path / "wiki" / "dewiki.txt.gz"
    seen = []
    assert wikipedia.write_articles(tmp_path / "d.xml.bz2", target, 1, lambda *done: seen.append(done)) == 1
    assert seen == [(1, 1)]
    assert next(iter(stream_texts([target]))) == "Weebill\n"
    assert gzip.decompress(target.read_bytes()).decode().endswith("\n\n")


def test_a_broken_dump_leaves_nothing(parser, tmp_path):
    body = bz2.compress(dump([page(f"Weebill {i}", PROSE + "x" * i) for i in range(300)]))
    (tmp_path / "d.xml.bz2").write_bytes(body[: len(body) // 2])
    with pytest.raises(DataError, match=r"d.xml.bz2: expected a Wikipedia dump, got: "):
        wikipedia.write_articles(tmp_path / "d.xml.bz2", tmp_path / "out" / "x.txt.gz")
    (tmp_path / "e.xml").write_bytes(dump([]))
    with pytest.raises(DataError, match=r"e.xml: expected articles, got none"):
        wikipedia.write_articles(tmp_path / "e.xml", tmp_path / "out" / "x.txt.gz")
    with pytest.raises(DataError, match="nothing there; check --from"):
        wikipedia.write_articles(tmp_path / "f.xml", tmp_path / "out" / "x.txt.gz")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "g.xml").write_bytes(dump([page("Weebill", PROSE)]))
    with pytest.raises(ArtifactError, match="expected a place to write"):
        wikipedia.write_articles(tmp_path / "g.xml", tmp_path / "g.xml" / "x.txt.gz")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(MissingExtraError, match=r"markup needs mwparserfromhell.*weebill\[fetch\]"):
        wikipedia.plain_text("x", set())


def test_the_dump_is_checked_with_the_published_checksum(monkeypatch, tmp_path):
    body = b"the dump"
    asked = []

    def download(remote, folder, progress=None):
        asked.append(remote)
        path = folder / remote.name
        sums = f"{'0' * 32}  simplewiki-20261101-pages-articles-multistream.xml.bz2\n"
        sums += f"{hashlib.md5(body).hexdigest()}  simplewiki-20261101-pages-articles.xml.bz2\n"
        path.write_bytes(body if "articles" in remote.name else sums.encode())
        return path

    monkeypatch.setattr(wikipedia, "download", download)
    path = wikipedia.fetch_dump("simple", tmp_path)
    assert asked[0].url == "https://dumps.wikimedia.org/simplewiki/latest/simplewiki-latest-md5sums.txt"
    assert asked[1].url == (
        "https://dumps.wikimedia.org/simplewiki/20261101/simplewiki-20261101-pages-articles.xml.bz2"
    )
    assert asked[1].checksum == f"md5:{hashlib.md5(body).hexdigest()}"

    def offline(remote, folder, progress=None):
        raise DataError("no connection")

    monkeypatch.setattr(wikipedia, "download", offline)
    said = []
    assert wikipedia.fetch_dump("simple", tmp_path, say=said.append) == path
    assert "as downloaded before" in said[0]
    with pytest.raises(DataError, match="no connection"):
        wikipedia.fetch_dump("de", tmp_path)
    with pytest.raises(ConfigError, match="--locale: expected a Wikipedia's language"):
        wikipedia.fetch_dump("../x", tmp_path)
