"""Writes requirements-hashed.txt: the pins of requirements.txt, with the SHA-256 of every file pip may install.

python scripts/lock.py                                                                              (or: make lock)

uv asks the package index for the files of exactly the versions that requirements.txt pins; it chooses no version and
adds no package. weebill itself is left out, as a folder has no hash, and so is torch: pip, made to ask for hashes,
would pass over every build without CUDA that a folder or another index offers and load gigabytes instead.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = """# Made by `make lock` from requirements.txt, without torch; do not edit. Every file has its SHA-256.
# How to install with it: docs/security.md
"""


def main() -> None:
    """Ask the index, write the file."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if re.match(r"[\w.-]+==", line) and not line.startswith("torch==")]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-deps", "--generate-hashes", "--universal",
               "--python-version", "3.11", "--no-config", "--no-header", "--no-annotate", "--quiet", "-"]  # fmt: skip
    done = subprocess.run(command, input="\n".join(pins), capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(
            f"{done.stderr}\nuv found not all of requirements.txt; is uv installed (make lock), and a network there?"
        )
    (ROOT / "requirements-hashed.txt").write_text(HEADER + done.stdout)


if __name__ == "__main__":
    main()
