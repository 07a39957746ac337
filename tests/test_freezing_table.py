"""weebill compare-freezing: every way is trained, and what it says of them is so."""

import json

import pytest
from typer.testing import CliRunner

from weebill import runs, templates
from weebill.cli import app
from weebill.config import EncoderConfig, FinetuneRecipe
from weebill.freezing_table import read_start_option, ways
from weebill.recipe_files import load_recipe
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer

SMALL = ["encoder.num_layers=2", "encoder.hidden_dim=16", "encoder.num_heads=2", "encoder.ffn_dim=16",
         "heads.lstm_dim=8", "heads.mlp_dim=8", "training.evals=1"]  # fmt: skip


def test_compare_freezing_trains_every_way(tmp_path, monkeypatch):
    train, dev = templates.generate()
    monkeypatch.setattr(runs.templates, "generate", lambda: (train[::40], dev[::40]))
    shape = EncoderConfig(num_layers=3, hidden_dim=16, num_heads=2, ffn_dim=16)
    SentenceTransformer(shape, Tokenizer.packaged()).save(tmp_path / "pre")
    sets = [option for one in SMALL[4:] for option in ("--set", one)]
    arguments = ["compare-freezing", "--epochs", "1", "--rows", "64", "--start", str(tmp_path / "pre"), *sets,
                 "--output", str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    assert "parameters that train" in result.output and "gradual unfreezing" in result.output
    rows = json.loads((tmp_path / "out" / "freezing.json").read_text())
    by_way = {row["way"]: row for row in rows}
    assert [row["way"] for row in rows] == [way.name for way in ways(3, 1)]
    cached, slow = by_way["entire network frozen, cached"], by_way["the same, the slow way"]
    assert cached["scores"] == slow["scores"] and set(cached["scores"]) == {"intent_accuracy", "span_f1", "exact_match"}
    parts = {name: (count, first) for name, count, _, first in by_way["lower half frozen"]["parts"]}
    assert parts["layer 0"][1] is parts["word embeddings"][1] is None and parts["layer 1"][1] == 1
    nothing, half = by_way["nothing frozen"], by_way["lower half frozen"]
    frozen = sum(count for count, first in parts.values() if first is None)
    assert nothing["trained"] - half["trained"] == frozen > 0
    heads = sum(parts[name][0] for name in ("intent_head", "tag_head"))
    assert cached["trained"] == heads == by_way["gradual unfreezing"]["trained"]  # after one epoch
    assert all(row["seconds"] > 0 and row["examples_per_s"] > 0 for row in rows)
    page = (tmp_path / "out" / "freezing.md").read_text()
    assert page.count("\n| ") == 9 and "times less processor time than the slow way" in page


def test_a_start_may_bring_a_recipe():
    base = load_recipe("demo-finetune", FinetuneRecipe)
    plain = read_start_option("random", base)
    assert (plain.name, plain.recipe) == ("random", base)
    other = read_start_option("some/bert@massive-teacher", base, ["training.epochs=2"])
    assert (other.name, other.recipe.start) == ("some/bert", "some/bert")
    assert other.recipe.training.learning_rate == 2e-4 and other.recipe.training.epochs == 2
    assert other.recipe.data == base.data
    assert read_start_option("a@b", base).recipe.start == "a@b"


@pytest.mark.parametrize(("layers", "epochs", "each"), [(4, 12, 2), (6, 3, 1)])
def test_gradual_unfreezing_fits_the_run(layers, epochs, each):
    assert f"freezing.epochs_per_layer={each}" in ways(layers, epochs)[-2].sets
