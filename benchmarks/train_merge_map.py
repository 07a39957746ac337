"""Trains the merge map that ships as src/weebill/assets/bpe_merged.json, from a gzipped or plain text file.

python benchmarks/train_merge_map.py enwiki-sample.txt.gz src/weebill/assets/bpe_merged.json
"""

import sys
import time

from rich.progress import Progress

from weebill.formats import read_texts
from weebill.tokenizer import Tokenizer


def main() -> None:
    source, target = sys.argv[1:3]
    started = time.perf_counter()
    with Progress() as progress:
        bar = progress.add_task("merges")
        tokenizer = Tokenizer.train(
            (line + "\n" for line in read_texts(source)),
            8192,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    tokenizer.save_merge_map(target)
    print(f"{tokenizer.vocab_size} tokens from {source} in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
