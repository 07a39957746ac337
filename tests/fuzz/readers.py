"""Coverage-guided fuzzing of every target with atheris; the first byte chooses. Ends with the first crash, or in time.

python tests/fuzz/readers.py [-max_total_time=300] [-only=TARGET] [CORPUS]                        (or: make fuzz)

What it finds belongs, made small, into tests/fuzz/found/TARGET/, where test_fuzz.py tries it for good.
"""

import logging
import sys

import atheris

with atheris.instrument_imports(include=["weebill", "yaml", "json"]):
    import targets


def main() -> None:
    only = [argument.removeprefix("-only=") for argument in sys.argv if argument.startswith("-only=")]
    names = only or sorted(targets.TARGETS)
    logging.disable(logging.CRITICAL)

    def one(body: bytes) -> None:
        if body:
            targets.try_one(names[body[0] % len(names)], body[1:])

    atheris.Setup([argument for argument in sys.argv if not argument.startswith("-only=")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
