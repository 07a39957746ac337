"""Tests of the data sets: what is written where, from archives, folders and files; what is left out and said."""

import dataclasses
import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from weebill import completeness
from weebill.archives import read_members
from weebill.datasets import MASSIVE_LOCALES, dataset, fetch
from weebill.download import RemoteFile
from weebill.errors import ConfigError, DataError
from weebill.formats import read_utterances
from weebill.pairs import read_pairs

SHARED = Path(os.environ.get("WEEBILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLISHED = {name: getattr(completeness, name) for name in ("LINES", "MASSIVE_ROWS")}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The files here have a few rows each, not as many as the published ones."""
    for name in ("LINES", "MASSIVE_ROWS"):
        monkeypatch.setattr(completeness, name, {})


def massive_line(number, partition, utt, annot_utt, locale="en-US"):
    row = {"id": str(number), "locale": locale, "partition": partition, "scenario": "alarm", "intent": "alarm_set"}
    return json.dumps({**row, "utt": utt, "annot_utt": annot_utt, "worker_id": "1"}, ensure_ascii=False) + "\n"


ENGLISH = "".join(
    massive_line(i, partition, f"wake me at {i}", f"wake me at [time : {i}]")
    for i, partition in enumerate(["train", "test", "dev", "train", "test"])
)
JAPANESE = massive_line(
    0, "train", "来月の三日朝六時に起こして", "[date : 来月の三日] [time : 朝六時] に起こして", "ja-JP"
)
CHINESE = massive_line(
    0, "train", "请在明早八点 call 我妈妈", "请在 [time : 明早八点] call 我 [relation : 妈妈]", "zh-CN"
)
THAI = massive_line(0, "train", "ปลุกฉันตอนเจ็ดโมงเช้า", "ปลุกฉันตอน [time : เจ็ดโมงเช้า]", "th-TH")


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            if isinstance(body, tarfile.TarInfo):
                tar.addfile(body)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(body.encode())
            tar.addfile(info, io.BytesIO(body.encode()))
    return path


def massive_archive(folder):
    return archive(folder / "amazon-massive-dataset-1.1.tar.gz", {
        "1.1/LICENSE": "CC BY 4.0", "1.1/NOTICE.md": "notice", "1.1/data/en-US.jsonl": ENGLISH,
        "1.1/data/ja-JP.jsonl": JAPANESE, "1.1/data/zh-CN.jsonl": CHINESE, "1.1/data/th-TH.jsonl": THAI,
    })  # fmt: skip


def test_massive_without_its_test_partition(tmp_path):
    said = []
    written = fetch(dataset("massive", "en-US"), tmp_path, tmp_path, massive_archive(tmp_path), say=said.append)
    assert [p.relative_to(tmp_path).as_posix() for p in written] == [
        "massive/en-US.jsonl", "massive/LICENSE", "massive/NOTICE.md",
    ]  # fmt: skip
    assert written[0].read_text() == "".join(line for line in ENGLISH.splitlines(keepends=True) if '"test"' not in line)
    assert any("3 of 5 rows; the test partition is left out" in text for text in said)
    assert any("is not the published file: expected md5:135c741954f86f23d37784dba247c78a" in text for text in said)
    assert any("is not the published amazon-massive-dataset-1.1.tar.gz: expected sha256:4cba" in text for text in said)
    written = fetch(dataset("massive", "en-US"), tmp_path, tmp_path, massive_archive(tmp_path), with_test=True)
    assert written[0].read_text() == ENGLISH


@pytest.mark.parametrize(
    ("locale", "text", "spans"),
    [
        ("ja-JP", "来月の三日朝六時に起こして", {"date": "来月の三日", "time": "朝六時"}),
        ("zh-CN", "请在明早八点 call 我妈妈", {"time": "明早八点", "relation": "妈妈"}),
        ("th-TH", "ปลุกฉันตอนเจ็ดโมงเช้า", {"time": "เจ็ดโมงเช้า"}),
    ],
)
def test_locales_without_spaces_have_spans_on_the_text_that_people_write(tmp_path, locale, text, spans):
    written = fetch(dataset("massive", locale), tmp_path, tmp_path, massive_archive(tmp_path))
    (utterance,) = read_utterances(written[0], split="train")
    assert utterance.text == text
    assert {e.label: text[e.start : e.end] for e in utterance.entities} == spans


def test_where_more_than_spaces_differs_the_annotated_text_is_the_text(tmp_path):
    (tmp_path / "m.jsonl").write_text(massive_line(0, "train", "Wake me at 7!", "wake me at [time : 7]"))
    (utterance,) = read_utterances(tmp_path / "m.jsonl")
    assert (utterance.text, utterance.entities[0].start) == ("wake me at 7", 11)
    (tmp_path / "m.jsonl").write_text(massive_line(0, "train", "三日", "三日 [time : ]"))
    with pytest.raises(DataError, match=r"m\.jsonl:1: expected spans within"):
        read_utterances(tmp_path / "m.jsonl")


def test_every_locale_of_massive_has_its_file():
    assert len(set(MASSIVE_LOCALES.split())) == 52
    for locale in MASSIVE_LOCALES.split():
        assert dataset("massive", locale).parts[0].place == f"massive/{locale}.jsonl"
    with pytest.raises(ConfigError, match=r"--locale: expected one of af-ZA, .*, got 'en'"):
        dataset("massive", "en")
    with pytest.raises(ConfigError, match="expected one of massive, stsb, qqp, atis, snips or wikipedia, got 'glue'"):
        dataset("glue", "en-US")


def test_from_a_folder_an_archive_in_it_and_a_single_file(tmp_path):
    massive_archive(tmp_path)
    wanted = dataset("massive", "th-TH")
    first = fetch(wanted, tmp_path / "a", tmp_path, tmp_path)[0].read_text()
    (tmp_path / "unpacked" / "1.1" / "data").mkdir(parents=True)
    (tmp_path / "unpacked" / "1.1" / "data" / "th-TH.jsonl").write_text(THAI)
    second = fetch(wanted, tmp_path / "b", tmp_path, tmp_path / "unpacked")[0].read_text()
    (tmp_path / "thai.txt").write_text(THAI)
    third = fetch(wanted, tmp_path / "c", tmp_path, tmp_path / "thai.txt")[0].read_text()
    assert first == second == third == THAI


def test_stsb_and_its_test_file(tmp_path):
    row = "main-captions\tMSRvid\t2012test\t{}\t5.000\tA plane.\tAn air plane.\n"
    source = archive(tmp_path / "s.tar.gz", {
        f"stsbenchmark/sts-{name}.csv": row.format(name) for name in ("train", "dev", "test")
    })  # fmt: skip
    written = fetch(dataset("stsb", "en-US"), tmp_path, tmp_path, source)
    assert [p.name for p in written] == ["sts-train.csv", "sts-dev.csv"]
    assert read_pairs(written[0])[0].score == 1.0
    assert len(fetch(dataset("stsb", "en-US"), tmp_path, tmp_path, source, with_test=True)) == 3


def test_qqp_is_split_with_no_question_on_both_sides(tmp_path):
    lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"]
    lines += [f"{i}\t1\t2\tWhat is number {i}?\twhat is NUMBER {i + i % 2}?\t{i % 2}" for i in range(400)]
    lines += ['400\t1\t2\t"Say ""hi""\nto me?"\tHow to say hi?\t1', "401\t1\t2\tAlone?\t\t0"]
    (tmp_path / "quora_duplicate_questions.tsv").write_text("\n".join(lines) + "\n")
    said = []
    written = fetch(dataset("qqp", "en-US"), tmp_path, tmp_path, tmp_path, say=said.append)
    train, dev = (read_pairs(path) for path in written)
    assert [p.name for p in written] == ["train.tsv", "dev.tsv"]
    assert (len(train), len(dev)) == (381, 20)
    questions = [{text.casefold() for pair in part for text in (pair.a, pair.b)} for part in (train, dev)]
    assert questions[0].isdisjoint(questions[1])
    assert 'Say "hi"\nto me?' in {pair.a for part in (train, dev) for pair in part}
    assert "1 pairs with an empty question are left out" in said


def slot_gated(folder, name="atis"):
    for split in ("train", "valid", "test"):
        (folder / name / split).mkdir(parents=True)
        (folder / name / split / "seq.in").write_text(f"fly to {split}\n")
        (folder / name / split / "seq.out").write_text("O O B-city\n")
        (folder / name / split / "label").write_text("flight\n")
    return folder


def test_atis_from_a_folder_and_as_a_zip_of_the_repository(tmp_path):
    slot_gated(tmp_path / "SlotGated-SLU-master" / "data")
    with zipfile.ZipFile(tmp_path / "master.zip", "w") as file:
        for path in sorted((tmp_path / "SlotGated-SLU-master").rglob("*")):
            file.write(path, path.relative_to(tmp_path))
    for number, source in enumerate([tmp_path / "SlotGated-SLU-master", tmp_path / "master.zip"]):
        output = tmp_path / str(number)
        assert len(fetch(dataset("atis", "en-US"), output, tmp_path, source)) == 6
        assert [u.text for u in read_utterances(output / "atis", split="dev")] == ["fly to valid"]
        assert not (output / "atis" / "test").exists()


def test_what_is_not_there(tmp_path):
    slot_gated(tmp_path / "data", "snips")
    with pytest.raises(DataError, match=r"data: expected atis/train/seq.in in it, got none; check what was downloaded"):
        fetch(dataset("atis", "en-US"), tmp_path / "out", tmp_path, tmp_path / "data")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="nowhere: expected an archive, a file or a folder, got nothing there"):
        fetch(dataset("stsb", "en-US"), tmp_path / "out", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_archive(tmp_path, cut):
    path = massive_archive(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(DataError, match=r"expected a readable archive, got: .*; download it again"):
        fetch(dataset("massive", "th-TH"), tmp_path / "out", tmp_path, path)
    assert not (tmp_path / "out").exists()


def test_a_massive_file_cut_within_a_line(tmp_path):
    (tmp_path / "en-US.jsonl").write_text(ENGLISH[:-40])
    with pytest.raises(DataError, match=r"massive/en-US.jsonl: expected JSON lines with a partition"):
        fetch(dataset("massive", "en-US"), tmp_path / "out", tmp_path, tmp_path / "en-US.jsonl")
    assert not (tmp_path / "out").exists()


STS_ROW = "main-captions\tMSRvid\t2012test\t1\t5.000\tA plane.\tAn air plane.\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (STS_ROW * 2, r"expected 3 lines in stsb/sts-train\.csv, got 2; copy or download it again"),
        (STS_ROW * 3 + STS_ROW[:20], r"expected a whole last line in stsb/sts-train\.csv, .*got 'main-captions"),
        (STS_ROW * 2 + STS_ROW[:-4], r"expected a whole last line in stsb/sts-train\.csv, .*got '.*An air pla'"),
    ],
)
def test_a_truncated_sts_file(tmp_path, monkeypatch, body, message):
    monkeypatch.setattr(completeness, "LINES", {"stsb/sts-train.csv": 3, "stsb/sts-dev.csv": 1})
    (tmp_path / "sts-train.csv").write_text(body)
    (tmp_path / "sts-dev.csv").write_text(STS_ROW)
    with pytest.raises(DataError, match=message):
        fetch(dataset("stsb", "en-US"), tmp_path / "out", tmp_path, tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "sts-train.csv").write_text(STS_ROW * 4)
    said = []
    fetch(dataset("stsb", "en-US"), tmp_path / "out", tmp_path, tmp_path, say=said.append)
    assert said == ["stsb/sts-train.csv is not the published file: expected 3 lines, got 4; used as it is"]


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("seq.out", "O O B-city\n" * 2, r"got 1 in seq\.in, 2 in seq\.out, 1 in label; copy or download them again"),
        ("label", "flight\nflight", r"got 1 in seq\.in, 1 in seq\.out, 2 in label"),
        ("seq.in", "", r"got 0 in seq\.in, 1 in seq\.out"),
    ],
)
def test_files_of_words_that_do_not_belong_together(tmp_path, monkeypatch, name, body, message):
    slot_gated(tmp_path / "data")
    (tmp_path / "data" / "atis" / "valid" / name).write_text(body)
    with pytest.raises(DataError, match=r"data: expected as many lines in each file of atis/dev, " + message):
        fetch(dataset("atis", "en-US"), tmp_path / "out", tmp_path, tmp_path / "data")
    monkeypatch.setattr(completeness, "LINES", {"atis/dev/seq.out": 500})
    with pytest.raises(DataError, match=r"expected 500 lines in atis/dev/seq\.out, got [12];"):
        fetch(dataset("atis", "en-US"), tmp_path / "out", tmp_path, tmp_path / "data")
    assert not (tmp_path / "out").exists()


def test_all_files_of_words_cut_within_a_line(tmp_path):
    slot_gated(tmp_path / "data")
    for name, body in (("seq.in", "fly to val"), ("seq.out", "O O B-ci"), ("label", "flig")):
        (tmp_path / "data" / "atis" / "valid" / name).write_text(body)
    with pytest.raises(DataError, match=r"expected a whole last line in atis/dev/label, .*got 'flig'"):
        fetch(dataset("atis", "en-US"), tmp_path / "out", tmp_path, tmp_path / "data")


def test_a_massive_file_cut_between_lines_and_one_without_its_test_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(completeness, "MASSIVE_ROWS", {"train": 2, "dev": 1, "test": 2})
    path, wanted = tmp_path / "en-US.jsonl", dataset("massive", "en-US")
    path.write_text("".join(ENGLISH.splitlines(keepends=True)[:3]))
    with pytest.raises(DataError, match=r"massive/en-US\.jsonl: expected 2 rows of partition train, got 1; copy or"):
        fetch(wanted, tmp_path / "out", tmp_path, path)
    assert not (tmp_path / "out").exists()
    path.write_text("".join(line for line in ENGLISH.splitlines(keepends=True) if '"test"' not in line))
    assert fetch(wanted, tmp_path / "out", tmp_path, path)
    with pytest.raises(DataError, match=r"expected 2 rows of partition test, got 0"):
        fetch(wanted, tmp_path / "out", tmp_path, path, with_test=True)


@pytest.mark.parametrize("cut", [3, 30])
def test_a_truncated_file_of_quora(tmp_path, cut):
    body = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tWhat is this thing here?\tAnd that?\t0\n"
    (tmp_path / "quora_duplicate_questions.tsv").write_text(body[:-cut])
    with pytest.raises(DataError, match=r"expected 4 columns in the last row, got \('1', .*the file was cut"):
        fetch(dataset("qqp", "en-US"), tmp_path / "out", tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["stsb", "atis", "snips", "massive"])
def test_whole_copies_of_the_published_files_are_taken(tmp_path, monkeypatch, name):
    if not (SHARED / name).is_dir():
        pytest.skip("no folder of real data; name one in WEEBILL_DATA")
    for attribute, numbers in PUBLISHED.items():
        monkeypatch.setattr(completeness, attribute, numbers)
    written = fetch(dataset(name, "en-US"), tmp_path, tmp_path, SHARED / name)
    for place in written:
        assert place.read_bytes() == (SHARED / place.relative_to(tmp_path)).read_bytes()


def test_rows_are_not_left_out_of_the_file_they_are_read_from(tmp_path):
    path = tmp_path / "massive" / "en-US.jsonl"
    path.parent.mkdir()
    path.write_text(ENGLISH)
    for source in (path, tmp_path):
        with pytest.raises(ConfigError, match=r"--output: expected another place than --from, .*choose another folder"):
            fetch(dataset("massive", "en-US"), tmp_path, tmp_path / "cache", source)
    assert path.read_text() == ENGLISH


def test_a_hostile_archive_writes_nowhere_else(tmp_path):
    link = tarfile.TarInfo("evil/sts-dev.csv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    source = archive(tmp_path / "evil.tar.gz", {
        "../../escaped/sts-train.csv": "from above\n", "/sts-test.csv": "absolute\n", "link": link,
    })  # fmt: skip
    with pytest.raises(DataError, match=r"expected sts-dev.csv in it, got none"):  # a link is no file
        fetch(dataset("stsb", "en-US"), tmp_path / "out", tmp_path, source)
    found = read_members(source, {"a": ["sts-train.csv"], "b": ["s-test.csv"]})
    assert found == {"a": b"from above\n"}  # whole parts of a path alone
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.tar.gz"]


def test_downloads_what_is_not_given(tmp_path, monkeypatch):
    """The road from a URL to the files, with the server of test_download.py's kind left out: a file in the cache."""
    body = massive_archive(tmp_path).read_bytes()
    wanted = dataset("massive", "th-TH")
    remote = wanted.remotes[0]._replace(checksum="sha256:" + hashlib.sha256(body).hexdigest())
    (tmp_path / "cache" / "massive").mkdir(parents=True)
    (tmp_path / "cache" / "massive" / remote.name).write_bytes(body)
    pytest.importorskip("filelock")
    written = fetch(dataclasses.replace(wanted, remotes=(remote,)), tmp_path / "out", tmp_path / "cache")
    assert written[0].read_text() == THAI


def test_addresses_are_those_of_the_publishers():
    hosts = {remote.url.split("/")[2] for name in ("massive", "stsb", "qqp", "atis", "snips")
             for remote in dataset(name, "en-US").remotes}  # fmt: skip
    assert hosts == {
        "amazon-massive-nlu-dataset.s3.amazonaws.com", "ixa2.si.ehu.eus", "qim.fs.quoracdn.net",
        "raw.githubusercontent.com",
    }  # fmt: skip
    for name in ("massive", "stsb", "qqp"):
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", dataset(name, "en-US").remotes[0].checksum)
    assert dataset("atis", "en-US").remotes[0] == RemoteFile(
        "https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/master/data/atis/train/seq.in", "atis/train/seq.in"
    )
