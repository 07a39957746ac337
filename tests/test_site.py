"""The documentation as a site: builds without a warning, and asks no other host for anything."""

import os
import re
import subprocess
import sys

import pytest

from documents import ROOT

# what a browser fetches by itself; a link that a reader may click is none
FETCHED = re.compile(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc(?:set)?=[\"']?([^\"' >]+)|"
                     r"<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next))[^>]*\bhref=[\"']?([^\"' >]+)")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=environment)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr, built.stderr
    return folder


def test_every_page_is_in_the_navigation(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"}
    linked = set(re.findall(r'href="([\w./-]+\.html)"', home))
    assert pages - linked - {"index.html"} == set(), "add them to `nav` in mkdocs.yml"


def test_nothing_comes_from_another_host(site):
    for path in site.rglob("*.html"):
        for match in FETCHED.finditer(path.read_text(encoding="utf-8")):
            address = match[1] or match[2]
            assert not re.match(r"(https?:)?//", address), f"{path.name} loads {address}"
    for path in site.rglob("*.css"):
        found = re.findall(r"url\(\s*[\"']?((?:https?:)?//[^\"')]+)|@import\s*[\"']([^\"']+)", path.read_text("utf-8"))
        assert found == [], f"{path.name} loads {found}"


def test_docstrings_and_outward_links_arrive(site):
    losses = (site / "reference" / "training.html").read_text(encoding="utf-8")
    assert 'id="weebill.losses.triplet_loss"' in losses and "TripletMarginWithDistanceLoss" in losses
    assert "reference/training.html#weebill.losses" in (site / "pretraining.html").read_text(encoding="utf-8")
    assert (site / "files" / "src" / "weebill" / "assets" / "templates.yaml").is_file()
