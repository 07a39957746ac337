"""A tiny BERT checkpoint with its own WordPiece tokenizer, as transformers writes it; random weights."""

import pytest

from weebill import templates

collect_ignore = ["fuzz/readers.py"]  # for doctests it would be imported, and atheris is seldom installed


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
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
