"""`python -m weebill` is the command line."""

from weebill.cli import main

main()
