"""Links of the site that lead out of docs/: to the module's page, or to a copy of the file. A hook of mkdocs.yml.

On a code host the pages link to files of the repository, as in `[losses.py](../src/weebill/losses.py)`. The site has no
repository around it: a module becomes a reference to where mkdocstrings documents it, any other file comes along.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
DOCUMENTED = {
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: weebill\.(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}
OUTWARD = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the page with its outward links replaced; mkdocs calls this for every page."""
    here = Path(page.file.abs_src_path).parent

    def replaced(match: re.Match[str]) -> str:
        target = (here / match[1]).resolve()
        if target.is_relative_to(config.docs_dir):
            return match[0]
        path = target.relative_to(ROOT)
        if path.parent == Path("src/weebill") and path.stem in DOCUMENTED:
            return f"][weebill.{path.stem}]"
        copy = f"files/{path.as_posix()}"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(target)))
        return f"]({os.path.relpath(copy, Path(page.file.src_uri).parent)})"

    return OUTWARD.sub(replaced, markdown)
