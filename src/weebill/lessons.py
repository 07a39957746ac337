"""What distillation learns from: labelled rows, swapped and noisy copies of them, texts without labels. No models."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from weebill.distill_config import DistillRecipe
from weebill.noise import hesitations, typing_errors
from weebill.schema import Utterance
from weebill.sources import SourceRecord, sample, texts_of
from weebill.substitution import replace_words, word_frames
from weebill.swapping import swap_values


@dataclass(frozen=True)
class Lesson:
    """One set of texts.

    Attributes:
        name: where it comes from, in words.
        utterances: those without labels have neither intent nor entities.
        weight: passes per epoch.
        labels: whether the teachers' intents and tags are learnt.
        embedding: whether the sentence teacher's embeddings are.
        doubtful: whether texts that the teachers doubt are left out.
        copies: whether these are other lessons' rows, changed.
        read_as: what teachers read in place of the texts, with as many words each; default: the texts.
    """

    name: str
    utterances: Sequence[Utterance]
    weight: float = 1.0
    labels: bool = True
    embedding: bool = True
    doubtful: bool = True
    copies: bool = False
    read_as: Sequence[str] | None = None

    @property
    def texts_for_teachers(self) -> Sequence[str]:
        """What teachers read in place of each text, word for word."""
        return self.read_as or [u.text for u in self.utterances]

    def record(self) -> SourceRecord:
        """Return name, size and fingerprint."""
        digest = hashlib.sha256()
        for u in self.utterances:
            labels = (u.intent, None if u.entities is None else [(e.start, e.end, e.label) for e in u.entities])
            digest.update(repr((u.text, *labels)).encode("utf-8", "surrogatepass"))
        return SourceRecord(self.name, "distill", len(self.utterances), digest.hexdigest())


def read_lessons(
    recipe: DistillRecipe, labelled: Sequence[Lesson], dev: Sequence[Utterance], data_root: Path
) -> list[Lesson]:
    """Return the labelled rows, swapped and noisy copies of those people labelled, and the texts the recipe names.

    A text that was read is not taken again without its label; one that dev has is not taken at all.

    Args:
        recipe: what to read.
        labelled: the labelled data sets.
        dev: held-out rows.
        data_root: where paths of texts start from.

    Raises:
        DataError: a file that is missing or holds no text.
    """
    lessons = list(labelled)
    seen = {u.text for lesson in lessons for u in lesson.utterances} | {u.text for u in dev}
    if recipe.swapping.copies:
        rows = [u for lesson in labelled if not lesson.doubtful for u in lesson.utterances]
        swapped = [u for u in swap_values(rows, recipe.swapping.copies, recipe.seed) if u.text not in seen]
        seen |= {u.text for u in swapped}
        lessons.append(Lesson("values swapped", swapped, recipe.swapping.weight, copies=True))
    lessons += _noisy([u for lesson in labelled if not lesson.doubtful for u in lesson.utterances], recipe)
    for spec in recipe.data.unlabelled:
        texts = [text for text in dict.fromkeys(texts_of(data_root / spec.path, spec.sentences)) if text not in seen]
        chosen = sample(texts, spec.max_rows, recipe.seed)
        seen.update(chosen)
        lessons.append(Lesson(spec.path, [Utterance(text, source=spec.path) for text in chosen], spec.weight,
                              "labels" in spec.learns, "embedding" in spec.learns))  # fmt: skip
    if recipe.substitution.copies:
        lessons.append(_replaced(lessons, [u for lesson in labelled if not lesson.doubtful for u in lesson.utterances],
                                 recipe, seen))  # fmt: skip
    return lessons


def _replaced(
    lessons: Sequence[Lesson], rows: Sequence[Utterance], recipe: DistillRecipe, seen: Collection[str]
) -> Lesson:
    settings = recipe.substitution
    said = (lesson for lesson in lessons if lesson.labels and not lesson.read_as)  # no typing errors
    frames = word_frames(u.text for lesson in said for u in lesson.utterances)
    changed = replace_words(rows, frames, settings.share, settings.copies, recipe.seed)
    new = {u.text: u for u in changed if u.text not in seen}
    return Lesson("words replaced", list(new.values()), settings.weight, copies=True)


def _noisy(rows: Sequence[Utterance], recipe: DistillRecipe) -> list[Lesson]:
    noise, lessons = recipe.noise, []
    if noise.typing_errors:
        pairs = list(typing_errors(rows, noise.typing_errors, recipe.seed))
        lessons.append(Lesson("typing errors", [changed for changed, _ in pairs], noise.weight, doubtful=False,
                              copies=True, read_as=[u.text for _, u in pairs]))  # fmt: skip
    if noise.hesitations:
        changed = list(hesitations(rows, recipe.seed))
        lessons.append(Lesson("hesitations", changed, noise.weight, doubtful=False, copies=True))
    return lessons
