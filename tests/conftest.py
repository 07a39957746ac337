"""What several test files share, and none may change: a model folder, a tiny BERT checkpoint, a browser."""

import pytest

from chromium import CHROMIUM, FLAGS
from weebill import templates

collect_ignore = ["fuzz/readers.py"]  # for doctests it would be imported, and atheris is seldom installed


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a model for the embedded data; random weights."""
    import torch

    from weebill.config import EncoderConfig, HeadsConfig
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer
    from weebill.tags import tag_vocabulary
    from weebill.tokenizer import Tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "nlu"
    rows = templates.generate()[0]
    encoder = SentenceTransformer(EncoderConfig(num_layers=1), Tokenizer.packaged())
    tags = tag_vocabulary({e.label for u in rows for e in u.entities})
    MultiTaskModel(encoder, sorted({u.intent for u in rows}), tags, HeadsConfig()).save(folder)
    return folder


@pytest.fixture(scope="module")  # while it is open, no test can run an event loop of its own
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A tiny BERT checkpoint with its own WordPiece tokenizer, as transformers writes it; random weights."""
    import torch
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import WordPiece
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    inner = Tokenizer(WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    inner.train_from_iterator([u.text for u in templates.generate()[0]], trainer)
    BertTokenizerFast(inner.get_vocab(), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=inner.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=48, max_position_embeddings=40, layer_norm_eps=1e-5)  # fmt: skip
    model = BertModel(config)
    for parameter in model.parameters():  # away from zeros and ones, so that a weight left out shows
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def few():
    """Utterances of five intents: what small models learn in seconds."""
    known = {"set_alarm", "play_music", "book_flight", "send_message", "weather"}
    return [u for u in templates.generate()[0] if u.intent in known]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where teachers' answers are kept while a module's tests run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEEBILL_CACHE", str(folder))
        yield folder
