import pytest

from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.distill_config import DistillRecipe
from weebill.errors import ConfigError
from weebill.recipe_files import load_recipe, parse_recipe, recipe_names


def test_every_shipped_recipe_is_valid():
    kinds = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe, "distill": DistillRecipe}
    for name in recipe_names():
        valid = []
        for task, kind in kinds.items():
            try:
                load_recipe(name, kind)
                valid.append(task)
            except ConfigError as error:
                assert "expected a recipe for" in str(error)
        assert len(valid) == 1, name


def test_overrides_and_types():
    recipe = load_recipe(
        "massive", FinetuneRecipe, ["training.epochs=3", "start=runs/x", "training.learning_rate=1e-3"]
    )
    assert (recipe.training.epochs, recipe.start, recipe.training.learning_rate) == (3, "runs/x", 1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "unknown key 'training.epoch'; did you mean 'training.epochs'"),
        ("epochs=3", "unknown key 'epochs'; did you mean 'training.epochs'"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1, got 0"),
        ("training.epochs=many", "training.epochs: .* got 'many'"),
        ("encoder.num_heads=7", "multiple of num_heads=7, got 64"),
        ("seed=-1", "seed: Input should be greater than or equal to 0, got -1"),
        ('data.train=[{path = "x"}]', r"""--set takes JSON, as in --set 'data.train=\[{"path": "rows.jsonl"}\]'"""),
        (
            "tokenizer=train",
            "--set tokenizer=train: .* beside start = 'tiny', which has its own; leave one of them out",
        ),
        ("no_equals_sign", "--set expects section.key=value, got 'no_equals_sign'"),
    ],
)
def test_bad_keys_and_values_are_explained(override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("massive", FinetuneRecipe, ["start=tiny", override])


def test_bad_recipe_files(tmp_path):
    with pytest.raises(ConfigError, match=r"shipped recipe \(atis, demo-finetune.*got 'nope'"):
        load_recipe("nope", FinetuneRecipe)
    (tmp_path / "r.toml").write_text("seed = = 3")
    with pytest.raises(ConfigError, match="expected TOML"):
        load_recipe(str(tmp_path / "r.toml"), FinetuneRecipe)
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbfseed = 3")
    assert load_recipe(str(tmp_path / "r.toml"), FinetuneRecipe).seed == 3
    with pytest.raises(ConfigError, match=r"^t: teachers must name a model folder .*, or linear.votes be more than 0$"):
        parse_recipe({}, DistillRecipe, "t")
    with pytest.raises(ConfigError, match="expected a recipe for `weebill pretrain`, got one for `weebill finetune`"):
        load_recipe("massive", PretrainRecipe)
