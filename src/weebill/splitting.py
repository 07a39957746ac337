"""Utterances -> parts and folds with every label in proportion, and nothing that belongs together on two sides.

Chooses rows only; it reads and writes no files. Intents and entity types are one multi-label problem, solved by the
iterative stratification of Sechidis, Tsoumakas & Vlahavas (2011), "On the Stratification of Multi-label Data",
https://doi.org/10.1007/978-3-642-23808-6_10, on groups of rows instead of rows and with sizes that are kept.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from weebill.errors import ConfigError
from weebill.schema import Utterance

EXCHANGES, MAX_EXCHANGES = 4, 100_000  # tried for each group after dealing, and in all


def text_key(text: str) -> str:
    """Return what two texts have in common that differ in letter case and spacing alone.

    Example:
        >>> text_key("Wake  me up ") == text_key("wake me up")
        True
    """
    return " ".join(text.casefold().split())


def template_key(utterance: Utterance) -> str:
    """Return the utterance's template: the one it was generated from, or its text with labels in place of values.

    Example:
        >>> from weebill.schema import Entity
        >>> template_key(Utterance("Wake me at 7 am", entities=(Entity(11, 15, "time"),)))
        'wake me at {time}'
    """
    if utterance.key:
        return utterance.key
    frame, done = "", 0
    for entity in sorted(utterance.entities or ()):
        frame += utterance.text[done : entity.start] + f"{{{entity.label}}}"
        done = entity.end
    return text_key(frame + utterance.text[done:])


def labels_of(utterance: Utterance) -> frozenset[str]:
    """Return what is to be spread evenly: the intent and every entity type, each once.

    Example:
        >>> sorted(labels_of(Utterance("hi", "greet", ())))
        ['intent greet']
    """
    entities = {f"entity {entity.label}" for entity in utterance.entities or ()}
    return frozenset(entities | ({f"intent {utterance.intent}"} if utterance.intent is not None else set()))


def part_sizes(sizes: Mapping[str, float], num_rows: int) -> dict[str, int]:
    """Return rows per part. A size below 1 is a fraction of all rows, another one a count; "train" takes the rest.

    Raises:
        ConfigError: A size is not above 0, a count is not whole, a part gets no row, or the parts with "train" among
            them do not add up to all rows.

    Example:
        >>> part_sizes({"dev": 0.1, "test": 200}, 1000)
        {'train': 700, 'dev': 100, 'test': 200}
    """
    rows = {}
    for name, size in sizes.items():
        if not 0 < size < float("inf") or (size >= 1 and size != int(size)):
            raise ConfigError(f"size of {name}: expected a fraction between 0 and 1 or a whole count, got {size:g}; "
                              f"correct it")  # fmt: skip
        rows[name] = round(size * num_rows) if size < 1 else int(size)
    if "train" not in rows:
        rows = {"train": num_rows - sum(rows.values()), **rows}
    elif all(size < 1 for size in sizes.values()) and abs(sum(sizes.values()) - 1) < 1e-9:
        rows["train"] += num_rows - sum(rows.values())  # what rounding left
    got = ", ".join(f"{name} {count}" for name, count in rows.items())
    if sum(rows.values()) == num_rows and min(rows.values()) < 1:
        raise ConfigError(f"expected one row or more in each part of {num_rows}, got {got}; give sizes as counts of "
                          f"rows, or collect more")  # fmt: skip
    if sum(rows.values()) != num_rows or min(rows.values()) < 1:
        raise ConfigError(f"expected sizes that add up to {num_rows} rows, with one or more in each part, got {got}; "
                          f"leave train out and it takes the rest")  # fmt: skip
    return rows


def split_rows(
    utterances: Sequence[Utterance],
    sizes: Sequence[int],
    group_by: Callable[[int], Hashable] | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Return the row numbers of each part, in order, stratified by intent and entity types.

    Rows with one text (see `text_key`) or one group stay together, also through a third row. Sizes are met exactly but
    for groups that are larger than the room left. Deterministic by seed.

    Args:
        utterances: The rows.
        sizes: Rows wanted in each part; they add up to all rows. Equal ones give folds.
        group_by: The group of a row number; default: texts alone.
        seed: Chooses among what is equally good.

    Example:
        >>> rows = [Utterance(f"text {i}", "a" if i % 2 else "b") for i in range(10)]
        >>> [len(part) for part in split_rows(rows, [8, 2])]
        [8, 2]
    """
    keys: list[list[Hashable]] = [[("text", text_key(utterance.text))] for utterance in utterances]
    if group_by is not None:
        for row, found in enumerate(keys):
            found.append(("group", group_by(row)))
    groups = connected(keys)
    part_of_group = _stratify([Counter(label for row in group for label in labels_of(utterances[row]))
                               for group in groups], [len(group) for group in groups], sizes, seed)  # fmt: skip
    parts: list[list[int]] = [[] for _ in sizes]
    for group, part in zip(groups, part_of_group, strict=True):
        parts[part].extend(group)
    return [sorted(part) for part in parts]


def connected(keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Return groups of rows that share a key, directly or through other rows, ordered by first row (union-find).

    Example:
        >>> connected([["a", "b"], ["c"], ["b", "d"]])
        [[0, 2], [1]]
    """
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, found in enumerate(keys):
        for key in found:
            a, b = sorted((root(first.setdefault(key, row)), root(row)))
            parent[b] = a
    groups: dict[int, list[int]] = {}
    for row in range(len(keys)):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def _stratify(counts: Sequence[Counter[str]], rows: Sequence[int], sizes: Sequence[int], seed: int) -> list[int]:
    """Return the part of each group, given its rows with each label and its rows in all.

    The label that has the fewest rows left is dealt out next, group by group, each to the part that wants most of the
    label among those with room for the group. What the sizes push onto the last labels is then mended by exchanges.
    """
    rng = random.Random(f"split {seed}")
    left: Counter[str] = Counter()
    for found in counts:
        left.update(found)
    wanted = [{label: count * size / sum(sizes) for label, count in left.items()} for size in sizes]
    room, part_of_group = list(sizes), [-1] * len(counts)
    order = list(range(len(counts)))
    rng.shuffle(order)
    order.sort(key=lambda group: -rows[group])  # large ones first, while there is room
    groups_with: dict[str | None, list[int]] = {None: order}  # None: what has no label comes last
    for group in order:
        for label in counts[group]:
            groups_with.setdefault(label, []).append(group)

    def deal(group: int, dealt: str | None) -> None:
        fitting = [part for part in range(len(sizes)) if room[part] >= rows[group]] or range(len(sizes))
        best = max(fitting, key=lambda part: (wanted[part].get(dealt or "", 0), room[part] / sizes[part], rng.random()))
        part_of_group[group] = best
        room[best] -= rows[group]
        for label, count in counts[group].items():
            wanted[best][label] -= count
            left[label] -= count

    while groups_with:
        rarest = min(left, key=lambda label: (left[label], label)) if left else None
        for group in groups_with.pop(rarest):
            if part_of_group[group] < 0:
                deal(group, rarest)
        del left[rarest or ""]
    _exchange(part_of_group, counts, rows, wanted, rng)
    return part_of_group


def _exchange(
    part_of_group: list[int],
    counts: Sequence[Counter[str]],
    rows: Sequence[int],
    wanted: Sequence[dict[str, float]],
    rng: random.Random,
) -> None:
    """Exchange random groups of equal size between parts where that lowers the squares of what is still `wanted`.

    The square counts for less the more rows a label has, as in a chi-square test, so rare labels are not sacrificed.
    """
    total: Counter[str] = Counter()
    for found in counts:
        total.update(found)
    of_size: dict[int, list[int]] = {}
    for group, size in enumerate(rows):
        of_size.setdefault(size, []).append(group)
    tries = min(EXCHANGES * len(counts), MAX_EXCHANGES)
    for group in rng.choices(range(len(counts)), k=tries):
        other = rng.choice(of_size[rows[group]])
        here, there = wanted[part_of_group[group]], wanted[part_of_group[other]]
        moved = {label: counts[group][label] - counts[other][label] for label in counts[group] | counts[other]}
        loss = sum(n * (here[label] - there[label] + n) / total[label] for label, n in moved.items())
        if here is not there and loss < 0:
            for label, n in moved.items():
                here[label] += n
                there[label] -= n
            part_of_group[group], part_of_group[other] = part_of_group[other], part_of_group[group]


@dataclass(frozen=True, slots=True)
class LabelShare:
    """Rows with one label: in all, and in each part."""

    label: str
    total: int
    parts: tuple[int, ...]


def label_shares(utterances: Sequence[Utterance], parts: Sequence[Sequence[int]]) -> list[LabelShare]:
    """Return how the labels are spread over the parts: intents, then entity types, each by name.

    Example:
        >>> label_shares([Utterance("a", "x"), Utterance("b", "x")], [[0], [1]])
        [LabelShare(label='intent x', total=2, parts=(1, 1))]
    """
    found = [Counter(label for row in part for label in labels_of(utterances[row])) for part in parts]
    names = sorted(set().union(*found), key=lambda label: (not label.startswith("intent "), label))
    return [LabelShare(name, sum(c[name] for c in found), tuple(c[name] for c in found)) for name in names]
