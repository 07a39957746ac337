"""`weebill pretrain|finetune|distill|compare-freezing`: parse arguments, call one function, print. No logic."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Train models.", no_args_is_help=True, rich_markup_mode="markdown")
console = Console(stderr=True)

Recipe = Annotated[str, typer.Argument(help="A recipe file (TOML), or the name of a shipped recipe.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a key: training.epochs=5. Repeatable.")]
Output = Annotated[Path, typer.Option(help="Folder of the new model; an older weebill model there is replaced.")]
Root = Annotated[Path, typer.Option(envvar="WEEBILL_DATA", help="Folder that the recipe's data paths start from.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run of this --output that was stopped.")]


@app.command()
def pretrain(
    recipe: Recipe, output: Output, set: Sets = None, data_root: Root = Path("data"), resume: Resume = False
) -> None:
    """Train a sentence encoder on pairs, triplets, texts or what a teacher says of them.

    Example: `weebill pretrain sts-qqp --data-root data --output runs/pretrained`
    """
    from weebill.config import PretrainRecipe
    from weebill.recipe_files import load_recipe
    from weebill.runs import run_pretrain

    run_pretrain(load_recipe(recipe, PretrainRecipe, set or ()), output, data_root, console, resume=resume)


@app.command()
def finetune(
    recipe: Recipe, output: Output, set: Sets = None, data_root: Root = Path("data"), resume: Resume = False
) -> None:
    """Train intent and entities on one encoder.

    Example: `weebill finetune massive --set start=runs/pretrained --output runs/massive`
    """
    from weebill.config import FinetuneRecipe
    from weebill.recipe_files import load_recipe
    from weebill.runs import run_finetune

    run_finetune(load_recipe(recipe, FinetuneRecipe, set or ()), output, data_root, console, resume=resume)


@app.command()
def distill(
    recipe: Recipe, output: Output, set: Sets = None, data_root: Root = Path("data"), resume: Resume = False
) -> None:
    """Train a small model on what larger ones say of labelled and unlabelled texts.

    Example: `weebill distill massive-tiny --data-root data --output runs/tiny`
    """
    from weebill.distill_config import DistillRecipe
    from weebill.recipe_files import load_recipe
    from weebill.runs import run_distill

    run_distill(load_recipe(recipe, DistillRecipe, set or ()), output, data_root, console, resume=resume)


@app.command()
def compare_freezing(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file (TOML), or the name of a shipped recipe: its data, rates, epochs.")
    ] = "demo-finetune",
    start: Annotated[
        list[str] | None,
        typer.Option(
            help="Where training starts: random, or a model folder or BERT as in a recipe; with @RECIPE that recipe's "
            "training, heads and loss. Repeatable.",
            show_default="random",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for freezing.json and freezing.md.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every run; default: the recipe's.", min=1)] = None,
    rows: Annotated[
        int | None, typer.Option(help="A seeded sample of so many training rows; default: all.", min=2)
    ] = None,
    set: Sets = None,
    data_root: Root = Path("data"),
) -> None:
    """Train the same model with nothing, much or all of it frozen, and compare speed and dev scores.

    Example: `weebill compare-freezing --output runs/freezing`

    Example: `weebill compare-freezing massive --data-root data --epochs 4 --start random --start runs/pretrained
    --start sentence-transformers/all-MiniLM-L6-v2@massive-teacher --output runs/freezing`
    """
    from weebill.config import FinetuneRecipe
    from weebill.runs import require_training

    require_training("training")
    from weebill.freezing_table import compare, read_start_option, table, write
    from weebill.recipe_files import load_recipe

    sets = [*(set or ()), *([f"training.epochs={epochs}", "training.min_steps=0"] if epochs else ())]
    base = load_recipe(recipe, FinetuneRecipe, sets)
    starts = [read_start_option(option, base, sets) for option in start or ["random"]]
    results = compare(starts, base, data_root, rows, console)
    Console().print(table(results))
    if output:
        write(results, output)
        console.print(f"written to {output}/freezing.json and freezing.md", soft_wrap=True, highlight=False)
