"""Masked language modelling: the masked tokens of a text, from its clip and the other tokens."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor

from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.heads import VocabularyHead
from modules.losses import token_loss
from modules.objectives.base import Heads, Objective


class MaskedTokens(Objective):
    """Frames and text are detached, as in the released pre-training."""

    NAMES = ("mlm",)

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        super().__init__(config, behaviour, heads)
        self.head = heads.get("vocabulary_head", lambda: VocabularyHead(config))

    def trains(self, active: Set[str]) -> set[str]:
        """The fusion encoder and the vocabulary head."""
        return {"fusion", "vocabulary"}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`mlm` and `mlm_accuracy`."""
        batch = encoded.batch
        hidden = encoded.dropout.rows(self.rows(encoded), "mlm")
        index = batch["mlm_index"]
        targets = batch["text_ids"].gather(1, batch["mlm_positions"]).flatten()[index]
        logits = self.head(hidden.flatten(0, 1)[index], encoded.model.clip.word_vectors)
        loss = token_loss(logits, targets)
        return {"mlm": loss.loss, "mlm_accuracy": loss.accuracy}

    def rows(self, encoded: Encoded) -> Tensor:
        """Fusion output at the masked positions (B, R, E); rows beyond a clip's own number of them mean nothing."""
        model, batch, video = encoded.model, encoded.batch, encoded.detached_video
        with torch.no_grad():  # text is detached in this loss
            text = model.encode_text(batch["text_ids"].masked_fill(batch["mlm_mask"], 0))
        context = model.fusion.context(video, hidden=encoded.hidden_frames(video))
        rows = model.fusion.text_rows(context, batch["mlm_positions"])
        text = text * ~batch["mlm_mask"][..., None]
        return model.fusion(context, text, batch["text_mask"], batch["text_lengths"] - 1, rows)
