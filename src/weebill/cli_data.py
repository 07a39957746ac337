"""`weebill data …`: parse arguments, call one function, print. No logic of its own."""

import typer

app = typer.Typer(help="Bring data into shape: convert between formats, find mistakes and mend them.",
                  no_args_is_help=True)  # fmt: skip


@app.callback()
def data() -> None:
    """Bring data into shape: convert between formats, find mistakes and mend them."""
