"""MultiTaskModel = SentenceTransformer + intent head + tag head; returns logits and decodes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from weebill.artifact import Heads, find_model, read_model, write_model
from weebill.config import HeadsConfig
from weebill.decoding import Transitions
from weebill.errors import ArtifactError
from weebill.heads import IntentHead, TagHead
from weebill.sent_transformer import SentenceTransformer


class MultiTaskModel(nn.Module):
    """Reads intent and entities in one pass over the encoder.

    `intents` and `tags` name the classes by index; tags are "O" and "B-x"/"I-x" pairs.
    """

    def __init__(self, encoder: SentenceTransformer, intents: Sequence[str], tags: Sequence[str], config: HeadsConfig):
        super().__init__()
        self.encoder = encoder
        self.intents, self.tags, self.config = list(intents), list(tags), config
        dim = encoder.config.hidden_dim
        self.intent_head = IntentHead(dim, len(self.intents), config)
        self.tag_head = TagHead(dim, len(self.tags), config)
        self.log_variances: nn.Parameter | None
        self.register_parameter("log_variances", None)  # of uncertainty weighting, while it trains; not kept on disk

    @property
    def whole_words(self) -> bool:
        """Whether entities are whole words."""
        return self.config.entity_boundaries == "words"

    @property
    def transitions(self) -> Transitions | None:
        """The scores of tags after tags, as they are now, if the model has a CRF."""
        chain = self.tag_head.crf
        if chain is None:
            return None
        return Transitions(*(getattr(chain, name).detach().float().cpu().numpy() for name in Transitions._fields))

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sentence embedding, intent logits and tag logits.

        Shape: int64 (B, T), bool (B, T) -> (B, E), (B, C), (B, T, L)
        """
        hidden_BTD, embedding_BE = self.encoder(input_ids_BT, attention_mask_BT)
        return embedding_BE, *self.read(hidden_BTD, attention_mask_BT)

    def read(self, hidden_BTD: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return intent logits and tag logits of the encoder's token states.

        Shape: (B, T, D), bool (B, T) -> (B, C), (B, T, L)
        """
        return self.intent_head(hidden_BTD[:, 0]), self.tag_head(hidden_BTD, attention_mask_BT)

    def save(
        self,
        folder: Path | str,
        training: dict[str, object] | None = None,
        extra_files: Mapping[str, str | bytes] | None = None,
    ) -> None:
        """Write the model folder with its heads, atomically."""
        from weebill.verification import golden_rows

        arrays = {
            f"{part}.{name}": t.detach().float().cpu().numpy()
            for part in ("intent_head", "tag_head")
            for name, t in getattr(self, part).state_dict().items()
        }
        arrays = {name: array for name, array in arrays.items() if not name.startswith("tag_head.crf.")}
        heads = Heads(self.intents, self.tags, self.config, arrays, self.transitions)
        encoder = self.encoder
        write_model(
            Path(folder),
            encoder.config,
            encoder.tokenizer,
            encoder.arrays(),
            heads,
            training,
            extra_files,
            golden_rows(self),
        )

    @classmethod
    def load(cls, folder: Path | str) -> "MultiTaskModel":
        """Read a model folder with heads.

        Raises:
            ArtifactError: not a complete weebill model, or one without heads.
        """
        stored = read_model(find_model(folder))
        if stored.heads is None:
            raise ArtifactError(f"{folder}: expected a model with intent and tag heads, got an encoder without; "
                                f"run: weebill finetune RECIPE --set start={folder} --output DIR")  # fmt: skip
        encoder = SentenceTransformer(stored.config, stored.tokenizer)
        encoder.load_arrays(stored.arrays)
        labels = (stored.heads.intents, stored.heads.tags, stored.heads.config)
        with torch.device("meta"):  # shapes without memory: the weights may be none of what the configuration says
            wanted = cls(encoder, *labels).state_dict()
        heads = {name: torch.from_numpy(array) for name, array in stored.heads.all_arrays().items()}
        for name, tensor in wanted.items():
            got = tuple(heads[name].shape) if name in heads else None
            if not name.startswith("encoder.") and got != tuple(tensor.shape):
                raise ArtifactError(f"{folder}/heads: expected the weight {name!r} of shape {tuple(tensor.shape)}, got "
                                    f"{got or 'none'}; weights and heads/config.json are not of one model: copy the "
                                    f"folder again")  # fmt: skip
        model = cls(encoder, *labels)
        model.load_state_dict(heads, strict=False)
        return model.eval()
