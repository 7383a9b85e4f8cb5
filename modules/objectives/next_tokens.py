"""Prefix language modelling: the next token of a text, from its clip and the tokens before it."""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar

from torch import Tensor

from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.fusion_encoder import FusionEncoder, VideoTokens
from modules.heads import VocabularyHead
from modules.losses import TokenLoss, token_loss
from modules.objectives.base import Heads, Objective


class NextTokens(Objective):
    """Pre-training's loss, from a drawn token on; frames and text are detached, as released.

    Attributes:
        STREAM: name of the dropout's random stream.
        label_smoothing: as in `token_loss`.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("plm",)
    STREAM = "plm"
    label_smoothing = 0.0

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        super().__init__(config, behaviour, heads)
        self.head = heads.get("vocabulary_head", lambda: VocabularyHead(config))

    def trains(self, active: Set[str]) -> set[str]:
        """The fusion encoder and the vocabulary head."""
        return {"fusion", "vocabulary"}

    @property
    def frame_positions(self) -> bool:
        """Whether frames have positions in this loss; in the released behaviour only without objects."""
        uses_objects = self.config.has_trajectories or self.config.has_actions
        return self.behaviour.next_token_frame_positions or not uses_objects

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`plm` and `plm_accuracy`."""
        loss = self.loss(encoded, encoded.detached_video, encoded.detached_text)
        return {"plm": loss.loss, "plm_accuracy": loss.accuracy}

    def loss(self, encoded: Encoded, video: VideoTokens, text: Tensor) -> TokenLoss:
        """Cross-entropy of the next tokens at `plm_index`, from texts (B, L, E), every token encoded."""
        rows = self.rows(encoded.model.fusion, video, text, encoded.hidden_frames(video))
        hidden = encoded.dropout.rows(rows, self.STREAM)
        index = encoded.batch["plm_index"]
        targets = encoded.batch["text_ids"][:, 1:].flatten()[index]
        logits = self.head(hidden.flatten(0, 1)[index], encoded.model.clip.word_vectors)
        return token_loss(logits, targets, self.label_smoothing)

    def rows(self, fusion: FusionEncoder, video: VideoTokens, text: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Fusion output that predicts tokens 1..L-1: (B, L - 1, E); `hidden` as in `FusionEncoder.context`."""
        context = fusion.context(video, frame_positions=self.frame_positions, hidden=hidden)
        return fusion.next_token(context, text)
