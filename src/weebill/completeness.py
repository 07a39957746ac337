"""Whether the files of a public data set are all there: rows, last lines. Reads no archives and writes nothing.

A copy that broke off is as readable as a whole one; only what is known of the published file tells them apart.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from weebill.errors import DataError

FOLDER_FILES = ("seq.in", "seq.out", "label")
LINES: Mapping[str, int] = {
    "stsb/sts-train.csv": 5_749, "stsb/sts-dev.csv": 1_500, "stsb/sts-test.csv": 1_379,
    **{f"atis/{split}/{file}": count for split, count in (("train", 4_478), ("dev", 500), ("test", 893))
       for file in FOLDER_FILES},
    **{f"snips/{split}/{file}": count for split, count in (("train", 13_084), ("dev", 700), ("test", 700))
       for file in FOLDER_FILES},
}  # fmt: skip
MASSIVE_ROWS: Mapping[str, int] = {"train": 11_514, "dev": 2_033, "test": 2_974}  # of every locale
STS_FIELDS = 7
AGAIN = "copy or download it again"


def check_lines(bodies: Mapping[str, bytes], where: str, say: Callable[[str], None]) -> None:
    """Refuse files, by their place under the output folder, that have fewer lines than were published.

    Raises:
        DataError: too few lines, a last one that is cut, or folders whose files differ in their number of lines.
    """
    for place, body in bodies.items():
        lines, wanted = _lines(body), LINES.get(place)
        if wanted is not None and lines < wanted:
            raise DataError(f"{where}: expected {wanted:,} lines in {place}, got {lines:,}; {AGAIN}")
        if wanted is not None and lines > wanted:
            say(f"{place} is not the published file: expected {wanted:,} lines, got {lines:,}; used as it is")
    for folder, files in _beside(bodies).items():
        counts = {name: _lines(body) for name, body in files.items()}
        if len(set(counts.values())) > 1:
            got = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
            raise DataError(f"{where}: expected as many lines in each file of {folder}, got {got}; copy or download "
                            f"them again")  # fmt: skip
    for place, body in bodies.items():
        _check_last_line(place, body, where)


def _lines(body: bytes) -> int:
    return body.count(b"\n") + (body[-1:] not in (b"\n", b""))


def _check_last_line(place: str, body: bytes, where: str) -> None:
    """Refuse a last line without an end, which train and dev have as published, or of STS with too few fields."""
    is_sts, is_words = place.startswith("stsb/sts-"), place.endswith(FOLDER_FILES)
    last = body.rstrip(b"\r\n").rpartition(b"\n")[2]
    ends = body.endswith(b"\n") or "test" in place or not (is_sts or is_words)
    if not ends or (is_sts and last.count(b"\t") + 1 < STS_FIELDS):
        fields = f"{STS_FIELDS} fields and " if is_sts else ""
        raise DataError(f"{where}: expected a whole last line in {place}, with {fields}an end of line, got "
                        f"{last[-40:].decode(errors='replace')!r}; {AGAIN}")  # fmt: skip


def _beside(bodies: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Return the files that hold the words, tags and intents of one partition, by folder."""
    folders = dict.fromkeys(place.rpartition("/")[0] for place in bodies if place.endswith(FOLDER_FILES))
    return {folder: {name: bodies[f"{folder}/{name}"] for name in FOLDER_FILES if f"{folder}/{name}" in bodies}
            for folder in folders}  # fmt: skip


def check_partitions(partitions: Counter[str], place: str, with_test: bool) -> None:
    """Refuse a locale of MASSIVE that has fewer rows in a partition than every locale has.

    Raises:
        DataError: a partition is cut, or not there.
    """
    for name, wanted in MASSIVE_ROWS.items():
        if partitions[name] < wanted and (name != "test" or with_test):
            raise DataError(f"{place}: expected {wanted:,} rows of partition {name}, got {partitions[name]:,}; {AGAIN}")
