"""A text gives the same whatever is read with it, however it is padded, on any number of threads, by torch or ONNX."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weebill
from weebill import templates
from weebill.data import batches_by_length
from weebill.export import export_onnx
from weebill.verification import TOLERANCE

SMALL = Path(__file__).parent / "folders" / "today"
TEXTS = [*(u.text for u in templates.generate()[1][:60]), "", "🎵", "wake me up " * 30]
PROGRAM = """
import json, sys
import numpy as np
import torch, weebill
texts, found = json.load(open(sys.argv[3], encoding="utf-8")), {}
for name, folder in (("torch", sys.argv[1]), ("onnx", sys.argv[2])):
    nlu = weebill.load(folder, name)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        nlu.backend.workers = threads if name == "onnx" else 1
        labels = [[p.intent, [(e.start, e.end, e.label) for e in p.entities]] for p in nlu.parse(texts)]
        found[f"{name}{threads}"] = nlu.embed(texts).tolist(), labels
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    assert export_onnx(SMALL, folder, [u for u in templates.generate()[1]][:20]).ok
    return {"torch": SMALL, "onnx": folder}


@pytest.fixture(scope="module", params=["torch", "onnx"])
def nlu(request, folders):
    return weebill.load(folders[request.param], request.param)


def labels(predictions):
    return [(p.text, p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in predictions]


def apart(a_ND, b_ND):
    """Return the largest difference of a component, as a share of its row's largest one."""
    return (np.abs(a_ND - b_ND).max(axis=-1) / np.abs(a_ND).max(axis=-1)).max()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=20), size=st.integers(1, 9))
def test_alone_or_in_any_batch(nlu, rows, size):
    texts = [TEXTS[i] for i in rows]
    alone = np.concatenate([nlu.embed([text]) for text in texts])
    together = np.zeros_like(alone)
    predictions = {}
    for numbers, batch, output in nlu.outputs(texts, batch_size=size, show_progress=False):
        together[numbers] = output.sentence_embedding_BD
        some = nlu.decode([texts[i] for i in numbers], batch, output)
        predictions |= zip(numbers.tolist(), some, strict=True)
    assert apart(alone, together) < TOLERANCE
    assert labels(predictions[i] for i in range(len(texts))) == labels(nlu(text) for text in texts)


@pytest.mark.parametrize("padding", [1, 7, 20])
def test_padded_or_not(nlu, padding):
    texts = [text for text in TEXTS if len(text) < 40]
    for numbers, batch in batches_by_length(nlu.tokenizer, texts, nlu.max_seq_len - padding, 4, show_progress=False):
        more = ((0, 0), (0, padding))
        ids = np.pad(batch.input_ids_BT, more, constant_values=nlu.tokenizer.pad_id)
        padded = replace(batch)  # whose rectangle is wider than it would have made it
        vars(padded).update(input_ids_BT=ids, attention_mask_BT=np.pad(batch.attention_mask_BT, more))
        one, other = nlu.backend.run(batch), nlu.backend.run(padded)
        assert apart(one.sentence_embedding_BD, other.sentence_embedding_BD) < TOLERANCE
        chosen = [texts[i] for i in numbers]
        assert labels(nlu.decode(chosen, batch, one)) == labels(nlu.decode(chosen, padded, other))


def test_on_any_number_of_threads_by_torch_or_onnx(folders, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, folders["torch"], folders["onnx"], tmp_path / "texts.json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found = {name: (np.array(vectors), said) for name, (vectors, said) in json.loads(done.stdout).items()}
    assert list(found) == ["torch1", "torch2", "onnx1", "onnx2"]
    first, *others = found.values()
    for vectors, said in others:
        assert apart(first[0], vectors) < TOLERANCE
        assert said == first[1]
    assert np.array_equal(found["onnx1"][0], found["onnx2"][0])  # whole batches beside one another: no sum changes


def test_the_same_call_twice_gives_the_same_bits(nlu):
    assert np.array_equal(nlu.embed(TEXTS), nlu.embed(TEXTS))
    assert nlu.parse(TEXTS) == nlu.parse(TEXTS)
