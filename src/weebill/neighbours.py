"""Known utterances nearest to a text by the cosine of their embeddings. Embeds nothing after construction."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weebill.geometry import unit_rows
from weebill.predictor import Predictor
from weebill.schema import Utterance
from weebill.templates import generate

NUM_EMBEDDED = 2_000  # half a second to embed


class Neighbours:
    """Utterances and their embeddings.

    Args:
        predictor: embeds them now, and later the texts that are compared.
        utterances: texts, with an intent or without.
    """

    def __init__(self, predictor: Predictor, utterances: Sequence[Utterance]):
        self.utterances = list(utterances)
        self.unit_ND = unit_rows(predictor.embed([u.text for u in self.utterances], show_progress=False))

    def nearest(self, embedding_D: npt.NDArray[np.float32], count: int) -> list[tuple[Utterance, float]]:
        """Return the `count` most similar utterances with their cosine similarity, the most similar first."""
        similarity_N = self.unit_ND @ unit_rows(embedding_D[None])[0]
        best = np.argsort(-similarity_N, kind="stable")[:count]
        return [(self.utterances[i], float(similarity_N[i])) for i in best]

    def varied(self, count: int) -> list[str]:
        """Return texts of different intents, at most `count`: of each the one that shows best in a line."""
        shows_well = sorted(self.utterances, key=lambda u: (-min(2, len(u.entities or ())), abs(len(u.text) - 40)))
        by_intent: dict[str | None, str] = {}
        for utterance in shows_well:
            by_intent.setdefault(utterance.intent, utterance.text)
        return list(by_intent.values())[:count]


def fitting_examples(predictor: Predictor) -> list[Utterance]:
    """Return embedded utterances whose intents the model knows, or none; of an encoder without intents, all fit."""
    utterances = generate(NUM_EMBEDDED)[0]
    if predictor.intents and not {u.intent for u in utterances} <= set(predictor.intents):
        return []
    return utterances
