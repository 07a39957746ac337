"""Neighbours by cosine, and which examples fit a model."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from oracles.word_table import word_table_predictor
from weebill.neighbours import Neighbours, fitting_examples
from weebill.schema import Entity, Utterance
from weebill.templates import load_grammar


def test_the_nearest_are_those_of_scikit_learn():
    predictor = word_table_predictor()
    utterances = [Utterance(f"play jazz at nine {i}") for i in range(200)]
    neighbours = Neighbours(predictor, utterances)
    vectors_ND = predictor.embed([u.text for u in utterances])
    oracle = NearestNeighbors(n_neighbors=7, metric="cosine").fit(vectors_ND)
    for vector_D in predictor.embed(["play jazz at nine 3", "what is", "🎵"]):
        distances, rows = oracle.kneighbors(vector_D[None])
        found = neighbours.nearest(vector_D, 7)
        assert [u for u, _ in found] == [utterances[i] for i in rows[0]]
        assert np.allclose([similarity for _, similarity in found], 1 - distances[0], atol=1e-5)


def test_suggestions_are_of_different_intents():
    time = Entity(0, 1, "time")
    rows = [("b " * 20, "x", (time,)), ("a " * 20, "x", (time, time)), ("c", "y"), ("d " * 9, "y"), ("e", "z", (time,))]
    neighbours = Neighbours(word_table_predictor(), [Utterance(*row) for row in rows])
    assert neighbours.varied(9) == ["a " * 20, "e", "d " * 9] and neighbours.varied(1) == ["a " * 20]


def test_the_embedded_examples_fit_models_that_know_their_intents():
    predictor = word_table_predictor()
    assert fitting_examples(predictor) == []
    predictor.intents = [*load_grammar().intents, "another"]
    assert {u.intent for u in fitting_examples(predictor)} <= set(predictor.intents)
    predictor.intents = []
    assert fitting_examples(predictor)
