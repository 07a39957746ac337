"""Writes requirements-hashed.txt: the pins of requirements.txt, with the SHA-256 of every file pip may install.

python scripts/lock.py                                                                              (or: make lock)

uv asks the package index for the files of exactly the versions that requirements.txt pins; it chooses no version and
adds no package. Of torch the build without CUDA counts too: where pip is pointed at one it prefers it, as its version
2.13.0+cpu sorts higher, and the index has only the others. weebill itself is left out: a folder has no hash.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl; change it with torch's version
TORCH_CPU = {"2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"]}
HEADER = """# Made by `make lock` from requirements.txt; do not edit. Every file pip may install has its SHA-256.
# How to install with it: docs/security.md
"""


def main() -> None:
    """Ask the index, add torch's CPU build, write the file."""
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(r"[\w.-]+==", line)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-deps", "--generate-hashes", "--universal",
               "--python-version", "3.11", "--no-config", "--no-header", "--no-annotate", "--quiet", "-"]  # fmt: skip
    done = subprocess.run(command, input="\n".join(pins), capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(
            f"{done.stderr}\nuv found not all of requirements.txt; is uv installed (make lock), and a network there?"
        )
    found = done.stdout
    for version, hashes in TORCH_CPU.items():
        pin = f"torch=={version} \\\n"
        if pin not in found:
            sys.exit(
                f"expected {pin.split()[0]} in requirements.txt, got another version: change TORCH_CPU in {__file__}"
            )
        found = found.replace(pin, pin + "".join(f"    --hash=sha256:{one} \\\n" for one in hashes))
    (ROOT / "requirements-hashed.txt").write_text(HEADER + found)


if __name__ == "__main__":
    main()
