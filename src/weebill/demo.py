"""The demo: every part of weebill once, on the embedded data, ending with results. Nothing here is canned."""

import shutil
from pathlib import Path

from rich.console import Console

from weebill import report, run_display, templates
from weebill.artifact import check_output
from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.evaluate import evaluate
from weebill.evaluate_pairs import pair_correlations
from weebill.predictor import load
from weebill.recipe_files import load_recipe
from weebill.runs import require_training, run_finetune, run_pretrain, training_folder
from weebill.tokenizer import Tokenizer

EXAMPLES = (
    "wake me up at nine am on friday",
    "could you book me a flight from oslo to lisbon tomorrow morning",
    "turn the kitchen lights blue",
    "is it going to rain in berlin this weekend",
    "text anna that i am running late",
)


def run_demo(output: Path, console: Console) -> None:
    """Train a tokenizer, an encoder and a joint model; evaluate; parse examples; say what to try next."""
    require_training("the demo")
    for part in ("tokenizer", "pretrained", "model"):
        if part != "tokenizer":
            check_output(output / part)
            shutil.rmtree(training_folder(output / part), ignore_errors=True)  # the demo always starts anew
    train, dev = templates.generate()
    console.rule("1 of 4  tokenizer")
    with run_display.merge_progress(console) as progress:
        tokenizer = Tokenizer.train((u.text for u in train), 4096, progress=progress)
    tokenizer.save(output / "tokenizer")
    console.print(f"{tokenizer.vocab_size:,} tokens; {EXAMPLES[0]!r} → {tokenizer.pieces(EXAMPLES[0])}")
    console.rule("2 of 4  pretrain the encoder on paraphrases")
    run_pretrain(load_recipe("demo-pretrain", PretrainRecipe), output / "pretrained", Path(), console, tokenizer)
    console.rule("3 of 4  fine-tune intent and entities")
    recipe = load_recipe("demo-finetune", FinetuneRecipe, [f"start={output / 'pretrained'}"])
    run_finetune(recipe, output / "model", Path(), console)
    console.rule("4 of 4  results on dev (templates never seen in training)")
    nlu = load(output / "model")
    table = report.scores(evaluate(nlu, dev), f"{output / 'model'} on the embedded dev split")
    pairs = pair_correlations(load(output / "pretrained"), templates.paraphrase_pairs("dev"))
    table.add_row("pretrained encoder: Spearman on paraphrases", f"{100 * pairs['spearman']:.2f}")
    console.print(table)
    for text in EXAMPLES:
        console.print(report.coloured(nlu(text)))
    console.rule("and the model that comes with weebill, for MASSIVE's intents")
    shipped = load()
    for text in EXAMPLES:
        console.print(report.coloured(shipped(text)))
    model = output / "model"
    encode = f"tokenizer encode {output / 'tokenizer'}"
    console.print(f"\n[bold]try next[/]\n  .venv/bin/weebill parse \"play some jazz at nine\"\n"
                  f"  .venv/bin/weebill serve\n"
                  f"  .venv/bin/weebill parse {model} \"set a timer for ten minutes\"\n"
                  f"  .venv/bin/weebill embed {model} \"play some jazz\"\n"
                  f"  .venv/bin/weebill evaluate {model}\n"
                  f"  .venv/bin/weebill {encode} \"wake me up\"", highlight=False)  # fmt: skip
