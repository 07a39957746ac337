"""Encoder, heads, model folder: parity with transformers and sentence-transformers, padding changes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch

import weebill
from weebill.artifact import check_output, read_model
from weebill.config import EncoderConfig, HeadsConfig
from weebill.errors import ArtifactError
from weebill.heads import TagHead
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer, sinusoidal_table
from weebill.tokenizer import Tokenizer

TEXTS = ["wake me up at nine am on friday", "hi", "", "play 🎵 some   jazz, s'il vous plaît!", "a b c d e f g " * 5]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.packaged()


@pytest.fixture(scope="module", params=["cls", "mean"])
def encoder(request, tokenizer):
    torch.manual_seed(0)
    config = EncoderConfig(
        num_layers=2, hidden_dim=32, num_heads=4, ffn_dim=48, embedding_dim=24, pooling=request.param
    )
    return SentenceTransformer(config, tokenizer).eval()


@pytest.fixture(scope="module")
def joint(tokenizer):
    torch.manual_seed(1)
    encoder = SentenceTransformer(EncoderConfig(num_layers=1, hidden_dim=16, num_heads=2, ffn_dim=32), tokenizer)
    return MultiTaskModel(encoder, ["alarm", "music"], ["O", "B-time", "I-time"], HeadsConfig()).eval()


def test_sinusoidal_table_by_hand():
    table = sinusoidal_table(3, 4)
    expected = [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]]
    assert np.allclose(table[:2], expected, atol=1e-7)


def test_default_shape_is_the_missions(tokenizer):
    config = EncoderConfig()
    assert (config.num_layers, config.num_heads, config.hidden_dim, config.pooling) == (4, 8, 64, "cls")
    layer = SentenceTransformer(config, tokenizer).layers[0]
    assert sum(p.numel() for p in layer.parameters()) == 4 * (64 * 64 + 64) + 2 * 64 * 256 + 256 + 64 + 4 * 64


def test_alone_equals_inside_a_batch(encoder):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert together.dtype == np.float32
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(encoder.encode(TEXTS[::-1])[::-1] - together).max() < 1e-5
    assert np.allclose(np.linalg.norm(encoder.encode(TEXTS, normalize=True), axis=1), 1, atol=1e-5)
    assert encoder.encode([]).shape == (0, 24)


def test_folder_loads_in_sentence_transformers_with_equal_embeddings(encoder, tmp_path):
    from sentence_transformers import SentenceTransformer as Peer

    encoder.save(tmp_path / "model")
    peer = Peer(str(tmp_path / "model"), device="cpu")
    assert np.abs(peer.encode(TEXTS) - encoder.encode(TEXTS)).max() < 1e-5
    again = SentenceTransformer.load(tmp_path / "model")
    assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def test_token_states_equal_bert_with_padding(encoder, tmp_path):
    from transformers import BertModel

    encoder.save(tmp_path / "model")
    bert = BertModel.from_pretrained(str(tmp_path / "model"), add_pooling_layer=False).eval()
    batch = encoder.tokenizer.encode_batch(TEXTS)
    ids, mask = torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.attention_mask_BT)
    with torch.inference_mode():
        want = bert(ids, attention_mask=mask.long()).last_hidden_state[mask]
        got = encoder(ids, mask)[0][mask]
    assert (want - got).abs().max() < 1e-5


def test_tag_head_equals_packed_bilstm():
    torch.manual_seed(0)
    head = TagHead(6, 3, HeadsConfig(lstm_dim=5)).eval()
    oracle = torch.nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    for name, value in head.forward_lstm.named_parameters():
        getattr(oracle, name).data.copy_(value)
        getattr(oracle, f"{name}_reverse").data.copy_(getattr(head.backward_lstm, name))
    states, lengths = torch.randn(3, 7, 6), torch.tensor([7, 4, 1])
    mask = torch.arange(7)[None, :] < lengths[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True)
    with torch.inference_mode():
        want = head.mlp(torch.nn.utils.rnn.pad_packed_sequence(oracle(packed)[0], batch_first=True)[0])
        got = head(states, mask)
    assert (want[mask] - got[mask]).abs().max() < 1e-6


def test_saved_joint_model_parses_the_same(joint, tmp_path):
    joint.save(tmp_path / "model")
    nlu = weebill.load(tmp_path / "model")
    again = weebill.load(tmp_path / "model")
    parsed = nlu.parse(TEXTS)
    assert parsed == again.parse(TEXTS)
    assert [p.text for p in parsed] == TEXTS
    alone = [nlu(text) for text in TEXTS]
    assert [(p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in alone] == [
        (p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in parsed
    ]
    assert np.abs(nlu.embed(TEXTS) - joint.encoder.encode(TEXTS)).max() < 1e-6


def test_damaged_folders_are_named(joint, tmp_path):
    with pytest.raises(ArtifactError, match="expected a weebill model folder, got nothing there"):
        weebill.load(tmp_path / "absent")
    with pytest.raises(ArtifactError, match="from the Hugging Face Hub: hf download absent-owner/name --local-dir DIR"):
        weebill.load("absent-owner/name")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match=r"without weebill\.json; from a BERT a model learns: weebill finetune joint-"
    ):
        weebill.load(tmp_path / "bert")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="got a file"):
        weebill.load(tmp_path / "file")
    joint.save(tmp_path / "model")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "heads/model.safetensors", "heads/config.json"):
        broken = tmp_path / "broken"
        shutil.copytree(tmp_path / "model", broken)
        if name != "config.json":  # only other libraries read config.json
            (broken / name).write_bytes(b"\x00not a model")
            with pytest.raises(ArtifactError, match=name.split("/")[-1]):
                weebill.load(broken)
        shutil.rmtree(broken)
    meta = json.loads((tmp_path / "model" / "weebill.json").read_text())
    (tmp_path / "model" / "weebill.json").write_text(json.dumps(meta | {"format_version": 99}))
    with pytest.raises(ArtifactError, match=r"expected format_version 1, got 99; upgrade weebill"):
        read_model(tmp_path / "model")


def test_output_that_is_no_model_is_never_replaced(joint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="expected a new or empty folder, or a weebill model to replace"):
        joint.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    joint.save(tmp_path / "model")
    joint.save(tmp_path / "model")
    check_output(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]


def test_encoder_without_heads_cannot_parse(encoder, tmp_path):
    encoder.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="expected a model with intent and tag heads"):
        weebill.load(tmp_path / "model")("hi")
