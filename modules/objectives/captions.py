"""Captioning: every token of a caption, from its clip and the tokens before it."""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar

from torch import Tensor

from modules.encoded import Encoded
from modules.objectives.next_tokens import NextTokens


class Captions(NextTokens):
    """The next-token loss of fine-tuning: nothing is detached, and frames have positions, as released."""

    NAMES: ClassVar[tuple[str, ...]] = ("caption",)
    STREAM = "caption"
    TURN = 0

    @property
    def frame_positions(self) -> bool:
        """Frames have positions, whatever the behaviour."""
        return True

    def trains(self, active: Set[str]) -> set[str]:
        """Both towers, the fusion encoder and the vocabulary head."""
        return {"frames", "text", "fusion", "vocabulary"}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`caption`, and `caption_accuracy`, the share of right arg-max tokens."""
        loss = self.loss(encoded, encoded.video, encoded.text)
        return {"caption": loss.loss, "caption_accuracy": loss.accuracy}


class CaptionScores(Captions):
    """What has learned captions, kept to score texts (modules/caption_scoring.py): no loss, and nothing trains it."""

    NAMES = ()
