"""A model folder is data: whatever lies in it gives a model or an ArtifactError, in bounded time and memory."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer as HuggingFace
from tokenizers import models, pre_tokenizers, processors

import weebill
from weebill import model_files
from weebill.bert import read_start
from weebill.errors import ArtifactError, WeebillError
from weebill.hf_tokenizer import load_tokenizer
from weebill.predictor import Predictor
from weebill.tokenizer import Tokenizer

SMALL = Path(__file__).parent / "folders" / "today"
SHIPPED = Path(weebill.__file__).parent / "assets" / "tiny"
TEXTS = ["wake me at nine", "", "🎵 [CLS]"]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SMALL, tmp_path / "model")


@pytest.fixture
def exported(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "exported")


@contextmanager
def seconds(limit):
    """Fail, rather than hang, when something takes longer."""
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError(f"more than {limit} s")))
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def use(folder):
    """Do all that is done with a folder that somebody sent; return the predictions."""
    weebill.verify(folder)
    return weebill.load(folder).parse(TEXTS)


def edit(path, *keys, value):
    """Set a value deep in a JSON file; DELETE removes it."""
    found = tree = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    path.write_text(json.dumps(tree), encoding="utf-8")


def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text((folder / "heads" / "config.json").read_text())
    (folder / "heads" / "config.json").unlink()
    (folder / "heads" / "config.json").symlink_to(secret)
    with pytest.raises(ArtifactError, match=r"config\.json: expected a file in the folder, got a link to .*secret"):
        use(folder)
    (folder / "heads" / "config.json").unlink()
    shutil.copy(secret, folder / "heads" / "other.json")
    (folder / "heads" / "config.json").symlink_to("other.json")  # within the folder a link is as good as a file
    assert len(use(folder)) == len(TEXTS)
    shutil.move(folder / "heads", tmp_path / "heads")
    (folder / "heads").symlink_to(tmp_path / "heads")
    with pytest.raises(ArtifactError, match="expected a file in the folder, got a link to"):
        use(folder)
    (folder / "heads").unlink()
    (folder / "heads").symlink_to("heads")
    with pytest.raises(ArtifactError, match="expected a readable file, got"):
        use(folder)


def test_a_link_to_the_whole_folder_and_the_hub_s_cache_are_fine(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(use(tmp_path / "link")) == len(TEXTS)
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    shutil.move(snapshot / "model.safetensors", blobs / "1234")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert len(use(snapshot)) == len(TEXTS)


def test_devices_pipes_and_crowds_are_refused(folder, monkeypatch):
    os.mkfifo(folder / "heads" / "pipe")
    with seconds(5), pytest.raises(ArtifactError, match="expected a regular file, got a device, pipe or socket"):
        use(folder)
    (folder / "heads" / "pipe").unlink()
    with (folder / "golden.jsonl").open("ab") as file:
        file.truncate(model_files.MAX_JSON_BYTES + 1)  # sparse: takes no room
    with pytest.raises(ArtifactError, match=r"golden\.jsonl: expected at most 268,435,456 bytes, got 268,435,457"):
        use(folder)
    monkeypatch.setattr(model_files, "MAX_ENTRIES", 5)
    with pytest.raises(ArtifactError, match="expected at most 5 files, got more"):
        use(folder)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "heads/../../x", "a\0b"])
def test_checksums_of_files_outside_the_folder_are_refused(folder, name):
    edit(folder / "weebill.json", "files", value={name: "0" * 64})
    with pytest.raises(ArtifactError, match="expected the name of a file within the folder, got"):
        weebill.verify(folder)


def test_modules_outside_the_folder_are_refused(bert_folder, tmp_path):
    copy = shutil.copytree(bert_folder, tmp_path / "bert")
    modules = [{"path": "../bert", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ArtifactError, match=r"expected the name of a file within the folder, got '\.\./bert'"):
        read_start(str(copy), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice in one object"),
        ('{"a": NaN}', "NaN, which is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity, which is no number"),
        ('{"a": ' * 100_000, "values nested too deeply"),
        ('{"a": ' + "9" * 10_000 + "}", "Exceeds the limit"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("\ufeff{}", "BOM"),
        ("[]", "expected a JSON dict, got list"),
    ],
)
def test_json_that_readers_may_take_for_different_things_is_refused(folder, text, message):
    (folder / "weebill.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        use(folder)


HUGE = 10**18
ENCODER, HEADS = ("weebill.json", "encoder"), ("heads/config.json", "heads")


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        *((ENCODER, key, HUGE) for key in ("num_layers", "num_heads", "hidden_dim", "ffn_dim", "max_seq_len",
                                            "embedding_dim", "layer_norm_eps")),
        (ENCODER, "hidden_dim", 16_384), (ENCODER, "num_layers", 48), (ENCODER, "max_seq_len", 8192),
        (ENCODER, "pooling", "__import__('os')"), (ENCODER, "dropout", 1e400),
        (ENCODER, "num_heads", 0), (ENCODER, "class", "os.system"),
        (HEADS, "lstm_dim", HUGE), (HEADS, "mlp_dim", HUGE), (HEADS, "lstm_dim", 16_384), (HEADS, "mlp_dim", 65_536),
        (("heads/config.json",), "intents", [f"i{n}" for n in range(20_000)]),
        (("heads/config.json",), "intents", []), (("heads/config.json",), "intents", {"alarm": 0}),
        (("heads/config.json",), "intents", ["alarm", "alarm"]), (("heads/config.json",), "intents", [1, 2]),
        (("heads/config.json",), "tags", ["B-time", "I-time", "X"]), (("heads/config.json",), "tags", ["O", "I-time"]),
        (("heads/config.json",), "tags", ["O", "B-time", "I-date"]), (("heads/config.json",), "tags", None),
        (("weebill.json",), "format_version", True), (("weebill.json",), "format_version", 0),
        (("weebill.json",), "format_version", "1"), (("weebill.json",), "encoder", []),
        (("weebill.json",), "training", "x"),
        (("weebill.json",), "decoding_version", []),
    ],
)  # fmt: skip
def test_shapes_and_labels_that_nobody_has_are_refused_at_once(folder, where, key, value):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    edit(folder / where[0], *where[1:], key, value=value)
    with seconds(10), pytest.raises(ArtifactError, match=r"expected .*got ") as raised:
        use(folder)
    assert "; " in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
def test_weights_that_are_no_numbers_are_refused(folder, number):
    arrays = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    arrays["embeddings.LayerNorm.bias"][0] = number
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"expected finite weights, got NaN or infinity in 'embeddings\.LayerNorm"):
        weebill.load(folder)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1000000000000,1000000000],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9]}}',
        b'{"__metadata__":{"x":1}}',
        b"[" * 10_000,
        b"",
    ],
)
def test_a_header_that_lies_is_refused(folder, header):
    for length in (len(header), 2**63, 0):
        (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header + b"\0" * 4)
        with pytest.raises(ArtifactError, match=r"expected (a safetensors file|the weight)"):
            weebill.load(folder)


def test_nothing_is_unpickled(folder):
    code = f"c__builtin__\neval\n(V(_ for _ in ()).throw(SystemExit('{folder}'))\ntR."
    (folder / "model.safetensors").write_bytes(code.encode())
    with pytest.raises(ArtifactError, match="expected a safetensors file"):
        weebill.load(folder)


# -- graphs


def graph(exported, change):
    """Change the graph of an exported model."""
    model = onnx.load(exported / "model.onnx")
    change(model)
    (exported / "model.onnx").write_bytes(model.SerializeToString())
    return exported


def outside(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def loop(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["again"])], "body",
        [helper.make_tensor_value_info(*one, []) for one in (("i", TensorProto.INT64), ("on", TensorProto.BOOL))],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    model.graph.node.append(helper.make_node("Loop", ["", "true"], [], body=body))


def in_a_constant(model):
    tensor = numpy_helper.from_array(np.zeros(1, np.float32))
    tensor.external_data.add().key = "location"
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def function(model):
    model.functions.add().name = "f"


@pytest.mark.parametrize(
    ("change", "message"),
    [(outside, "got weights in another file"), (in_a_constant, "got weights in another file"),
     (loop, "got a graph within a node"), (function, "got a function")],
)  # fmt: skip
def test_a_graph_that_could_do_more_than_compute_is_refused(exported, change, message):
    with pytest.raises(ArtifactError, match=rf"model\.onnx: expected a graph of plain nodes and weights, {message}"):
        weebill.load(graph(exported, change))


def rename(model):
    model.graph.output[0].name = "other"


def unknown(model):
    model.graph.node[0].domain = "evil.example"


def nonsense(model):
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


@pytest.mark.parametrize("change", [rename, unknown, nonsense])
def test_a_graph_with_other_outputs_is_refused(exported, change):
    with pytest.raises(ArtifactError, match=r"model\.onnx: expected .*(got|others)"):
        weebill.load(graph(exported, change), "onnx").parse(TEXTS)


def without(model):
    del model.graph.initializer[[t.name for t in model.graph.initializer].index("linear.bias")]


def smaller(model):
    replaced = next(t for t in model.graph.initializer if t.name == "linear.bias")
    replaced.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "linear.bias"))


def spread(model):  # numpy would make 10 ** 10 numbers of it
    names = {t.name: t for t in model.graph.initializer}
    for name, shape in (("linear.weight", (1, 100_000)), ("linear.weight.scale", (100_000, 1))):
        names[name].CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), name))


def tensor_named(model, name):
    return next(t for t in model.graph.initializer if t.name == name)


def not_a_number(model):
    tensor_named(model, "linear.bias").CopyFrom(numpy_helper.from_array(np.full(96, np.nan, np.float32), "linear.bias"))


def infinite_scale(model):
    scale = np.full((1, 96), np.inf, np.float32)
    tensor_named(model, "linear.weight.scale").CopyFrom(numpy_helper.from_array(scale, "linear.weight.scale"))


def cut_short(model):
    bias = tensor_named(model, "linear.bias")
    bias.raw_data = bias.raw_data[:-4]


def unknown_type(model):
    tensor_named(model, "linear.bias").data_type = 99


def complex_numbers(model):
    tensor_named(model, "linear.bias").CopyFrom(numpy_helper.from_array(np.ones(96, np.complex64), "linear.bias"))


@pytest.mark.parametrize(
    ("change", "message"),
    [(without, r"got one without 'linear\.bias'; name the folder it was exported from"),
     (smaller, r"expected the weight 'linear\.bias' of shape \(96,\), got \(3,\)"),
     (spread, r"got weights that cannot be read \(linear\.weight: \(1, 100000\) with scales \(100000, 1\)\)"),
     (not_a_number, r"got numbers that are not finite in 'linear\.bias'"),
     (infinite_scale, r"got numbers that are not finite in 'linear\.weight'"),
     (cut_short, r"got weights that cannot be read \(.*; name the folder it was exported from"),
     (unknown_type, r"got weights that cannot be read \(linear\.bias: neither float32 nor int8\)"),
     (complex_numbers, r"got weights that cannot be read \(linear\.bias: neither float32 nor int8\)")],
)  # fmt: skip
def test_a_graph_without_the_weights_it_should_have_is_no_start(exported, change, message):
    with pytest.raises(ArtifactError, match=message):
        weebill.load(graph(exported, change), "torch")


def test_a_graph_that_does_not_fit_the_tokenizer_says_so(exported):
    def cut(model):
        for tensor in model.graph.initializer:
            if list(tensor.dims)[:1] and tensor.dims[0] > 1000:
                array = numpy_helper.to_array(tensor)[:3]
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    with pytest.raises(ArtifactError, match=r"model\.onnx: expected a graph that runs, got: .*; copy it again"):
        weebill.load(graph(exported, cut), "onnx").parse(TEXTS)


def test_damaged_graphs_do_not_end_the_process(exported):
    """In processes of their own: onnxruntime is C++, and a crash there would end these tests."""
    code = """
import random, sys
from pathlib import Path
import weebill
from weebill.errors import ArtifactError
file, rng = Path(sys.argv[1]) / "model.onnx", random.Random(int(sys.argv[2]))
body = file.read_bytes()
for _ in range(12):
    damaged = bytearray(body)
    start = rng.choice([0, len(body) - 4000])  # where structure is, not weights
    for _ in range(rng.randint(1, 4)):
        damaged[start + rng.randrange(4000)] = rng.randrange(256)
    file.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
    try:
        weebill.load(sys.argv[1], "onnx").parse(["wake me", "at nine"])
    except ArtifactError:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code, str(exported), "1"], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# -- tokenizers


def hugging_face(folder, **parts):
    """Write the tokenizer.json of a WordPiece with other parts."""
    inner = HuggingFace(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    value = json.loads(inner.to_str()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},  # the library panics
        {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
                            "pair": [], "special_tokens": {}}},  # here too
        {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100}},
        {"model": "x"}, {"model": None}, {"decoder": ["ByteLevel"]} | {"model": 5}, {"added_tokens": 5},
    ],
)  # fmt: skip
def test_a_tokenizer_that_breaks_its_library_is_refused(folder, parts, capfd):
    hugging_face(folder, **parts)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: expected .*got "):
        load_tokenizer(folder)


@pytest.mark.parametrize("value", [["x"], 5, {"tokenizer_class": ["x"]}, {"do_lower_case": "x", "strip_accents": []}])
def test_options_of_other_types_are_refused_or_passed_over(folder, value):
    hugging_face(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(value))
    try:
        assert load_tokenizer(folder).encode("a").token_ids == [2, 4, 3]
    except ArtifactError as error:
        assert "expected" in str(error)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(a|aa)+$", "expected one that splits 61 characters within 1 s"), ("a{1000000000}", "or 999 repetitions"),
     ("(" * 1500, "got '"), ("(" * 5000, "more than 2000 characters"), ("(?<=a{0,99999})b", "or 999 repetitions")],
)  # fmt: skip
def test_a_pattern_that_never_ends_is_refused(folder, pattern, message, monkeypatch):
    from weebill import bpe

    monkeypatch.setattr(bpe, "PATTERN_SECONDS", 1.0)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    value = json.loads((folder / "tokenizer.json").read_text())
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, value["pre_tokenizer"] | {"use_regex": False}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(value))
    with seconds(20), pytest.raises(WeebillError, match=message):
        Tokenizer.load(folder).encode("a" * 60 + "b")


@pytest.mark.parametrize("token_id", [-1, 10**9, 10**30, 1.5, "x", None, True])
def test_token_ids_that_no_vocabulary_has_are_refused(folder, token_id):
    for keys in (("model", "vocab", "w"), ("added_tokens", 0, "id")):
        if (keys[-1], token_id) == ("id", True):
            continue  # [PAD] has the id 0, and 1 is another's
        shutil.copy(SMALL / "tokenizer.json", folder / "tokenizer.json")
        edit(folder / "tokenizer.json", *keys, value=token_id)
        with seconds(5), pytest.raises(ArtifactError, match="expected a byte-level BPE"):
            Tokenizer.load(folder)


@pytest.mark.parametrize("rank", [-1, 10**12, 3])
def test_ranks_that_no_vocabulary_has_are_refused(tmp_path, rank):
    import base64

    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    path = tmp_path / "x.tiktoken"
    path.write_text("\n".join([*lines, f"{base64.b64encode(b'ab').decode()} {rank}"]))
    with seconds(5), pytest.raises(ArtifactError, match="expected distinct ranks from 0 to 4,194,303"):
        Tokenizer.load(path)


# -- anything at all

FILES = sorted(path.relative_to(SMALL).as_posix() for path in SMALL.rglob("*") if path.is_file())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value, path=()):
    """Return the keys that lead to every value of a JSON tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:20]) if isinstance(value, list) else ()
    return [path, *(place for key, inner in pairs for place in places(inner, (*path, key)))]


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_a_model_or_an_artifact_error(tmp_path, data):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(SMALL, copy)
    path = copy / data.draw(st.sampled_from(FILES))
    body = bytearray(path.read_bytes())
    if path.suffix == ".json" and data.draw(st.booleans()):
        tree = json.loads(body)
        place = data.draw(st.sampled_from([p for p in places(tree) if p]))
        edit(path, *place, value=data.draw(JSON))
    elif data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 5))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(body)
    else:
        path.write_bytes(body[: data.draw(st.integers(0, len(body)))])
    with seconds(20):
        try:
            assert isinstance(weebill.load(copy), Predictor)
            use(copy)
        except WeebillError as error:
            assert str(copy) in str(error) or "split_pattern" in str(error) or "expected" in str(error)
