"""What can go wrong, as types; holds no logic.

WeebillError             every error a user can cause; the command line prints it and exits with code 2
├── ConfigError          a recipe or an option is wrong
├── DataError            a data file is missing, empty, malformed or contradicts itself
│   └── TrainingStopped      the loss is not a finite number any more (train.py)
├── TrainingInterrupted  Ctrl-C: the run stopped after a step and can go on; exit code 130
├── ArtifactError        a folder or file is not the model or tokenizer it should be, or could not be written
├── Overloaded           the server has as many texts waiting as it accepts (batching.py)
└── MissingExtraError    an optional dependency is not installed; the message names the pip command

A message says what was expected, what arrived, where (file:line), and what to do.
"""


class WeebillError(Exception):
    """Base of every error weebill raises on purpose."""


class ConfigError(WeebillError):
    """A recipe or an option is wrong."""


class DataError(WeebillError):
    """A data file is missing, empty, malformed or contradicts itself."""


class TrainingInterrupted(WeebillError):
    """The user stopped the run after a step; its checkpoint is written."""


class ArtifactError(WeebillError):
    """A folder or file is not the model or tokenizer it should be, or could not be written."""


class MissingExtraError(WeebillError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str, instead: str = ""):
        command = f"pip install 'weebill[{extra}]'" + (f", {instead}" if instead else "")
        super().__init__(f"{purpose} needs {package}, which is not installed; run: {command}")
