r"""The template language: a YAML file -> a checked `Grammar` of expressions. Draws nothing; generator.py does that.

An expression is text with `{slot}`, `{label:slot}`, `<rule>`, `[optional]` and `(one|other)`; `/3/` in front of an
alternative or a list item is its weight, and `\` takes the meaning from the next character.
The names of the notation are those of the JSpeech Grammar Format, https://www.w3.org/TR/jsgf/; `{slot}` is ours.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from weebill.errors import ConfigError
from weebill.expressions import Choice, Expression, Literal, Sequence, Slot, join
from weebill.files import numbered_lines
from weebill.schema import Entity

_Token = tuple[int, str, str]  # position, kind, value

_TOKEN = re.compile(r"\\(?P<escaped>.)|\{(?P<slot>[^{}]*)\}|<(?P<rule>[^<>]*)>|(?P<mark>[][()|{}<>\\])")
_NAME = re.compile(r"[\w.-]+")
_WEIGHT = re.compile(r"\s*/\s*(\d+(?:\.\d+)?)\s*/\s*")
_MAX_DEPTH = 50  # of YAML; the layout has four
_CLOSING = {"[": "]", "(": ")"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there


@dataclass(frozen=True)
class Template:
    """One phrasing of an intent: `source` as written, `where` ("file:line") it is written."""

    source: str
    where: str
    weight: float
    expression: Sequence

    def fill(self, number: int) -> tuple[str, tuple[Entity, ...]]:
        """Return text and entities, in order of start, of one of `expression.size` fillings."""
        return join(self.expression.pieces(number))


@dataclass(frozen=True)
class Grammar:
    """Slot values by name, and templates by intent and split.

    The split of a grammar without splits is "". Every intent has every split.
    """

    slots: Mapping[str, Choice]
    intents: Mapping[str, Mapping[str, tuple[Template, ...]]]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in file order."""
        return tuple(next(iter(self.intents.values())))

    @property
    def size(self) -> int:
        """Number of fillings of all templates: an upper bound of the distinct texts."""
        return sum(
            template.expression.size
            for splits in self.intents.values()
            for templates in splits.values()
            for template in templates
        )

    def values(self, slot: str) -> tuple[str, ...]:
        """Return every value of a slot."""
        choice = self.slots[slot]
        return tuple(join(choice.pieces(number))[0] for number in range(choice.size))


def read_grammar(path: Path) -> Grammar:
    """Return the grammar in a YAML file.

    Raises:
        DataError: The file is missing, empty or not UTF-8.
        ConfigError: See `parse_grammar`.
    """
    return parse_grammar("\n".join(line for _, line in numbered_lines(path)), str(path))


def parse_grammar(text: str, source: str) -> Grammar:
    r"""Return the grammar written in `text` (YAML, and so JSON too), checked; `source` is its file name in messages.

    Raises:
        ConfigError: Not YAML, or not the layout docs/generate.md gives; an unknown slot or rule, an empty list, a rule
            that contains itself, brackets that do not match, a value or template written twice or with no text.

    Example:
        >>> text = "slots: {city: [Rome, New York]}\nintents: {go: ['take me to {city} [please]']}"
        >>> template = parse_grammar(text, "my.yaml").intents["go"][""][0]
        >>> template.expression.size, template.fill(0)
        (4, ('take me to Rome please', (Entity(start=11, end=15, label='city', score=1.0),)))
    """
    try:
        _check_depth(text, source)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{source}:{line}: expected YAML, got: {error.problem}; put quotes around text that starts with a bracket "
            f"or holds ': ' or ' #', and in a [list] around text that holds brackets, braces or commas"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: expected YAML, got: {error}; fix the file") from error
    return _Reader(source).grammar(root)


def _check_depth(text: str, source: str) -> None:
    """Refuse what is nested so deeply that libyaml, which recurses, would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{source}:{event.start_mark.line + 1}: expected lists within the intents, splits and "
                              f"slots, got {depth} levels; write them out")  # fmt: skip


@dataclass
class _Item:
    """One text of a list in the file: without its weight, with its line."""

    text: str
    weight: float
    where: str


@dataclass
class _Reader:
    """Turns YAML nodes into a grammar; slots and rules are read when first named, each once."""

    source: str
    slot_items: dict[str, list[_Item]] = field(default_factory=dict)
    rule_items: dict[str, list[_Item]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    open_names: list[str] = field(default_factory=list)

    def grammar(self, root: yaml.Node | None) -> Grammar:
        sections = dict(self.mapping(root, "the keys slots, rules and intents", ("slots", "rules", "intents")))
        if "intents" not in sections:
            raise ConfigError(f"{self.source}: expected a key 'intents', got none; add the intents and their templates")
        for section, items in (("slots", self.slot_items), ("rules", self.rule_items)):
            for name, node in self.mapping(sections[section], f"names under {section}") if section in sections else ():
                self.check_name(name, self.where(node))
                items[name] = self.items(node, f"{section}.{name}")
        slots = {}
        for name, values in self.slot_items.items():
            self.check_repeats(values, f"values of slot {name!r}")
            slots[name] = self.choice(f"{{{name}}}", values[0].where)
        for name, alternatives in self.rule_items.items():
            self.choice(f"<{name}>", alternatives[0].where)
        intents = {
            name: self.intent(name, node) for name, node in self.mapping(sections["intents"], "names of intents")
        }
        self.check_intents(intents)
        return Grammar(slots, intents)

    def intent(self, name: str, node: yaml.Node) -> dict[str, tuple[Template, ...]]:
        if not name or name.split() != [name]:
            raise ConfigError(f"{self.where(node)}: expected an intent without white space, got {name!r}; rename it")
        if isinstance(node, yaml.MappingNode):
            splits = dict(self.mapping(node, f"splits of intent {name}"))
        else:
            splits = {"": node}
        return {split: tuple(self.template(item) for item in self.items(part, f"intents.{name}{split and '.' + split}"))
                for split, part in splits.items()}  # fmt: skip

    def template(self, item: _Item) -> Template:
        expression = self.expression(item)
        if expression.is_nullable:
            raise ConfigError(
                f"{item.where}: expected a template that always gives a text, got {item.text!r}, of which all is "
                f"optional; add a part that stays"
            )
        return Template(item.text, item.where, item.weight, expression)

    def check_intents(self, intents: Mapping[str, Mapping[str, tuple[Template, ...]]]) -> None:
        first, splits = next((name, set(parts)) for name, parts in intents.items())
        seen: dict[str, str] = {}
        for name, parts in intents.items():
            where = next(iter(parts.values()))[0].where
            if set(parts) != splits:
                raise ConfigError(
                    f"{where}: expected {_splits(splits)} as in intent {first}, got {_splits(set(parts))} of intent "
                    f"{name}; give every intent the same"
                )
            for template in (template for templates in parts.values() for template in templates):
                if template.source in seen:
                    raise ConfigError(
                        f"{template.where}: expected each template once over all intents and splits, got "
                        f"{template.source!r} at {seen[template.source]} too; reword one of them"
                    )
                seen[template.source] = template.where

    # the expression language

    def expression(self, item: _Item) -> Sequence:
        tokens = list(_tokens(item.text))
        parts, rest = self.sequence(tokens, item)
        if rest:
            at, mark = rest[0][0], item.text[rest[0][0]]
            hint = "put ( ) around the alternatives" if mark == "|" else "open it, or write a backslash before it"
            raise ConfigError(f"{item.where}: expected no {mark!r} at character {at + 1} of {item.text!r}; {hint}")
        return parts

    def sequence(self, tokens: list[_Token], item: _Item) -> tuple[Sequence, list[_Token]]:
        """Read up to a mark that ends a sequence; return it and the tokens from that mark on."""
        parts: list[Expression] = []
        while tokens:
            at, kind, value = tokens[0]
            if kind == "text":
                parts.append(Literal(value))
            elif kind == "slot":
                parts.append(self.slot(value, item))
            elif kind == "rule":
                parts.append(self.choice(f"<{value.strip()}>", item.where))
            elif value in _CLOSING:
                choice, tokens = self.alternatives(tokens, item)
                parts.append(choice)
                continue
            elif value in ("]", ")", "|"):
                break
            else:
                what = "a closed {slot}" if value in "{}" else "a closed <rule>"
                what = "a character after the backslash" if value == "\\" else what
                raise ConfigError(
                    f"{item.where}: expected {what}, got {value!r} alone at character {at + 1} of {item.text!r}; "
                    f"correct it, or write a backslash before it"
                )
            tokens = tokens[1:]
        return Sequence(tuple(parts)), tokens

    def alternatives(self, tokens: list[_Token], item: _Item) -> tuple[Choice, list[_Token]]:
        """Read "(a|b)" or "[a|b]" from its opening mark; return it and the tokens after it."""
        at, _, opening = tokens[0]
        options, weights = [], []
        tokens = tokens[1:]
        while True:
            weight = 1.0
            if tokens and tokens[0][1] == "text":
                position, _, text = tokens[0]
                if _WEIGHT.match(item.text, position):  # as written: an escaped one is text
                    weight, text = self.weight(text, item.where)
                tokens = [(position, "text", text), *tokens[1:]]
            option, tokens = self.sequence(tokens, item)
            options.append(option)
            weights.append(weight)
            if not tokens or tokens[0][2] != "|":
                break
            tokens = tokens[1:]
        if not tokens or tokens[0][2] != _CLOSING[opening]:
            raise ConfigError(
                f"{item.where}: expected {_CLOSING[opening]!r} for the {opening!r} at character {at + 1} of "
                f"{item.text!r}, got {repr(tokens[0][2]) if tokens else 'the end'}; close it"
            )
        choice = Choice(tuple(options), tuple(weights))
        if opening == "[":  # there or not, equally often
            choice = Choice((choice, Literal("")), (1.0, 1.0))
        return choice, tokens[1:]

    def slot(self, inside: str, item: _Item) -> Slot:
        label, colon, name = (part.strip() for part in inside.partition(":"))
        name = name if colon else label
        for part in (label, name):
            self.check_name(part, item.where)
        within = next((name for name in self.open_names if name.startswith("{")), None)
        if within:
            raise ConfigError(f"{item.where}: expected values of slot {within} without slots, got {{{inside}}}; use a "
                              f"<rule> instead")  # fmt: skip
        return Slot(label, self.choice(f"{{{name}}}", item.where))

    def choice(self, bracketed: str, where: str) -> Choice:
        """Return the alternatives of "{slot}" or "<rule>"."""
        if bracketed in self.choices:
            return self.choices[bracketed]
        name, is_slot = bracketed[1:-1], bracketed[0] == "{"
        known, section = (self.slot_items, "slots") if is_slot else (self.rule_items, "rules")
        if bracketed in self.open_names:
            path = " -> ".join([*self.open_names[self.open_names.index(bracketed) :], bracketed])
            raise ConfigError(f"{where}: expected rules that do not contain themselves, got {path}; break the circle")
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {bracketed[0]}{close[0]}{bracketed[-1]}?" if close else f"add it under {section}"
            raise ConfigError(f"{where}: expected {'values' if is_slot else 'alternatives'} for {bracketed}, got none "
                              f"under {section}; {hint}")  # fmt: skip
        self.open_names.append(bracketed)
        options = [self.expression(item) for item in known[name]]
        self.open_names.pop()
        for item, option in zip(known[name], options, strict=True):
            if is_slot and option.is_nullable:
                raise ConfigError(f"{item.where}: expected a value that always has text, got {item.text!r} of slot "
                                  f"{name!r}; add a part that stays")  # fmt: skip
        self.choices[bracketed] = Choice(tuple(options), tuple(item.weight for item in known[name]))
        return self.choices[bracketed]

    # the YAML around it

    def mapping(
        self, node: yaml.Node | None, what: str, allowed: tuple[str, ...] | None = None
    ) -> Iterator[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode) or not node.value:
            got = "nothing" if node is None or not node.value else f"a {node.id}"
            raise ConfigError(f"{self.where(node)}: expected {what}, got {got}; see docs/generate.md for the layout")
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise ConfigError(f"{self.source}:{line}: expected {name!r} once, got it on line {lines[name]} too; "
                                  f"join the two")  # fmt: skip
            if allowed and name not in allowed:
                close = get_close_matches(name, allowed, 1)
                raise ConfigError(f"{self.source}:{line}: expected {what}, got {name!r}; "
                                  f"{f'did you mean {close[0]}?' if close else 'remove it'}")  # fmt: skip
            lines[name] = line
            yield name, value

    def items(self, node: yaml.Node, key: str) -> list[_Item]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            got = "an empty list" if isinstance(node, yaml.SequenceNode) else f"a {node.id}"
            raise ConfigError(f"{self.where(node)}: expected a list of texts under {key}, got {got}; write them as "
                              f"'- text' lines or [one, two]")  # fmt: skip
        found = []
        for child in node.value:
            if not isinstance(child, yaml.ScalarNode):
                raise ConfigError(f"{self.where(child)}: expected a text under {key}, got a {child.id}; put quotes "
                                  f"around text that starts with [ or {{ or holds ': '")  # fmt: skip
            weight, text = self.weight(child.value, self.where(child))
            text = text.strip()
            if not text:
                raise ConfigError(f"{self.where(child)}: expected a text under {key}, got an empty one; remove it")
            found.append(_Item(text, weight, self.where(child)))
        return found

    def weight(self, text: str, where: str) -> tuple[float, str]:
        """Return the weight that a text starts with, 1 by default, and the text without it."""
        match = _WEIGHT.match(text)
        if not match:
            return 1.0, text
        if float(match[1]) == 0:
            raise ConfigError(f"{where}: expected a weight above 0, got {match[0].strip()}; remove what never comes up")
        return float(match[1]), text[match.end() :]

    def check_name(self, name: str, where: str) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: expected a name of letters, digits, '_', '-' and '.', got {name!r}; rename it")

    def check_repeats(self, items: list[_Item], what: str) -> None:
        seen: dict[str, str] = {}
        for item in items:
            if item.text in seen:
                raise ConfigError(f"{item.where}: expected distinct {what}, got {item.text!r} at {seen[item.text]} "
                                  f"too; remove one, or give it a weight")  # fmt: skip
            seen[item.text] = item.where

    def where(self, node: yaml.Node | None) -> str:
        return f"{self.source}:{node.start_mark.line + 1 if node is not None else 1}"


def _tokens(text: str) -> Iterator[_Token]:
    """Yield (position, kind, value): kind "text", "slot", "rule" or "mark"; text has single spaces."""
    plain, start, end = "", 0, 0
    for match in _TOKEN.finditer(text):
        plain += text[end : match.start()]
        end = match.end()
        if match.lastgroup == "escaped":
            plain += match["escaped"]
            continue
        if plain:
            yield start, "text", re.sub(r"\s+", " ", plain)
        yield match.start(), str(match.lastgroup), match[str(match.lastgroup)]
        plain, start = "", end
    if plain + text[end:]:
        yield start, "text", re.sub(r"\s+", " ", plain + text[end:])


def _splits(names: set[str]) -> str:
    return f"the splits {', '.join(sorted(names))}" if names != {""} else "a list without splits"
