"""Docstrings as the site reads them: `Example:` begins examples there too. A griffe extension, see mkdocs.yml."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Name the section as griffe knows it; as `Example:` it would read the doctest as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of every object that has one."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
