"""Checks a tokenizer trained on a large file against tokenizers and tiktoken: merges, ids, offsets.

python benchmarks/tokenizer_parity.py udhr.txt.gz --vocab-size 16384
python benchmarks/tokenizer_parity.py enwiki-sample.txt.gz --megabytes 20 --encode udhr.txt.gz
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tokenizer import MEGABYTE, as_tiktoken, first_megabytes, train_peer
from tokenizers import Tokenizer as Peer

from weebill.corpus import stream_texts
from weebill.tokenizer import Tokenizer

HARD = (
    "👩‍👩‍👧‍👦 🏳️‍🌈 é e\u0301 ﷺ العربية עברית \x00\x01\x1c\x85\u2028 \t \n\n  \r\n x",
    *(" ", "  ", "   a  b   ", "\n \n a \n  \n", "a\n \nb", "1234567 12 3", "it's I'M we'LL", "[CLS] <s>"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="UTF-8 text to train on, plain or .gz")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--megabytes", type=int, default=1000, help="read no more than this")
    parser.add_argument("--encode", type=Path, help="text to encode; default: the text trained on")
    args = parser.parse_args()
    lines = first_megabytes(args.text, args.megabytes * MEGABYTE)
    mine = Tokenizer.train(lines, args.vocab_size)
    merges = [[mine.token_name(a), mine.token_name(b)] for a, b in mine.merges]
    same_merges = merges == peer_merges(train_peer(lines, args.vocab_size))
    print(f"{len(merges):,} merges, as tokenizers learns them, in the same order: {same_merges}")
    encoded = lines if args.encode is None else list(stream_texts([args.encode]))
    documents = [*(part for part in "".join(encoded).split("\n\n") if part), "".join(encoded)[:500_000], *HARD]
    with tempfile.TemporaryDirectory() as folder:
        mine.save(folder)
        peer = Peer.from_file(f"{folder}/tokenizer.json")
        peer.encode_special_tokens = True
        other = as_tiktoken(mine, Path(folder))
    differ = [0, 0, 0]
    for text in documents:
        encoding, theirs, ids = mine.encode(text), peer.encode(text), mine.encode_ordinary(text)
        differ[0] += (encoding.token_ids, encoding.offsets) != (theirs.ids, theirs.offsets)
        differ[1] += ids != other.encode_ordinary(text)
        differ[2] += mine.decode(ids) != text
    counts = f"{differ[0]} differ from tokenizers, {differ[1]} from tiktoken, {differ[2]} from themselves decoded"
    print(f"of {len(documents):,} documents {counts}")
    sys.exit(0 if same_merges and not any(differ) else 1)


def peer_merges(peer: Peer) -> list[list[str]]:
    return [list(merge) for merge in json.loads(peer.to_str())["model"]["merges"]]


if __name__ == "__main__":
    main()
