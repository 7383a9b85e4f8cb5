"""Video-text matching: is this the text of this clip? Trained on hard negatives."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import torch
from torch import Tensor

from modules.collectives import gather, gather_constant, rank, world_size
from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.fusion_encoder import VideoTokens, pad_columns
from modules.heads import MatchingHead
from modules.losses import TokenLoss, token_loss
from modules.objectives.base import Heads, Objective
from modules.random_streams import uniform
from modules.true_pairs import TruePairs


class Matching(Objective):
    """Each pair of the batch is joined by a wrong video and a wrong text, drawn in proportion to softmax(similarity).

    Frame features and text tokens are detached, trajectories and actions are not, as released.
    """

    NAMES = ("vtm",)
    NEEDS_PAIRS = True
    TURN = 3

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        super().__init__(config, behaviour, heads)
        self.head = heads.get("matching_head", lambda: MatchingHead(config, behaviour))

    def trains(self, active: Set[str]) -> set[str]:
        """The fusion encoder and the matching head."""
        return {"fusion", "matching"}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`vtm` and `vtm_accuracy`; a single pair in the global batch has no negative, and 0 as its loss."""
        if encoded.similarity.text_to_video.shape[1] == 1:  # with the gradient path that DDP expects
            return {"vtm": 0.0 * (self.head.match.sum() + self.head.unmatch.sum())}
        loss = self.loss(encoded)
        return {"vtm": loss.loss, "vtm_accuracy": loss.accuracy}

    def loss(self, encoded: Encoded) -> TokenLoss:
        """Of this rank's positives with two negatives each, as far as there are any."""
        negatives = self.negatives(encoded)
        rows = encoded.model.fusion.matching_rows(*self.pairs(encoded, negatives))
        factors = encoded.dropout.factors("vtm", 3, 2, 2, rows.shape[-1])
        scores = self.head(rows, None if factors is None else factors.flatten(0, 1))
        return matching_loss(scores, 3, self.counted(negatives))

    def counted(self, negatives: Negatives) -> Tensor | None:
        """Which of the 3·B pairs count: (3·B,) bool, or None for all. A sample without any negative has no positive."""
        if self.behaviour.same_clip_negatives:
            return None
        own = own_places(negatives.video)
        has_video, has_text = negatives.video != own, negatives.text != own
        return interleave(has_video | has_text, has_video, has_text)

    def pairs(self, encoded: Encoded, negatives: Negatives) -> Pool:
        """The 3·B pairs of this rank, in the order positive, wrong video, wrong text."""
        pool = self._global_pool(encoded)
        own = own_places(negatives.video)
        which_video = interleave(own, negatives.video, own)
        which_text = interleave(own, own, negatives.text)
        return Pool(
            pool.video.select(which_video),
            pool.text[which_text],
            pool.text_mask[which_text],
            pool.text_lengths[which_text],
        )

    @staticmethod
    def negatives(encoded: Encoded) -> Negatives:
        """Those that the batch names, else drawn ones."""
        batch = encoded.batch
        if "hard_negative_video" in batch:
            return Negatives(batch["hard_negative_video"], batch["hard_negative_text"])
        return hard_negatives(*encoded.similarity, batch["random_keys"], encoded.true_pairs)

    def _global_pool(self, encoded: Encoded) -> Pool:
        """Clips and texts of all ranks; gradients of trajectories and actions go back to the rank that owns them."""
        video, text = encoded.detached_video, encoded.detached_text
        mask, lengths = encoded.batch["text_mask"], encoded.batch["text_lengths"]
        if world_size() == 1:
            return Pool(video, text, mask, lengths)
        # Ranks trim to different sizes; the full size is known to all without communication.
        words, trajectories = self.config.max_words, self.config.num_trajectories

        def padded(part: Tensor | None) -> Tensor | None:
            return None if part is None else pad_columns(part, trajectories)

        everywhere = VideoTokens(
            gather_constant(video.frames),
            gather_constant(video.frame_mask),
            _gather(padded(video.trajectories)),
            _gather(padded(video.trajectory_mask)),
            _gather(video.actions),
            _gather(video.further),
            _gather(video.further_mask),
        )
        return Pool(
            everywhere,
            gather_constant(pad_columns(text, words)),
            gather_constant(pad_columns(mask, words)),
            gather_constant(lengths),
        )


def _gather(part: Tensor | None) -> Tensor | None:
    """Rows of all ranks, with gradient where there is one."""
    if part is None:
        return None
    return gather_constant(part) if part.dtype == torch.bool else gather(part)


class Negatives(NamedTuple):
    """Indices into the global batch: `video[i]` is the wrong video for text i, `text[i]` the wrong text for video i.

    The own index stands for none, where everything in the batch is true.
    """

    video: Tensor
    text: Tensor


@torch.no_grad()
def hard_negatives(
    text_to_video: Tensor, video_to_text: Tensor, keys: Tensor, true_pairs: TruePairs | None = None
) -> Negatives:
    """Draw, for each of this rank's pairs, a wrong video and a wrong text in proportion to softmax(similarity).

    Args:
        text_to_video, video_to_text: (B, G) logits of this rank's texts and videos against the global batch, G > 1.
        keys: (B,) keys of the samples; the draw depends on nothing else.
        true_pairs: what is never drawn; without it the own pair alone.
    """
    own = own_places(keys)

    def draw(logits: Tensor, stream: str, is_true: Tensor | None) -> Tensor:
        if is_true is None:
            wrong = logits.float().scatter(1, own[:, None], float("-inf"))
        else:
            wrong = logits.float().masked_fill(is_true, float("-inf"))
        weights = wrong.softmax(-1).cumsum(-1)
        point = uniform(keys, stream, 1) * weights[:, -1:]
        index = torch.searchsorted(weights, point, right=True)[:, 0].clamp(max=weights.shape[1] - 1)
        # Rounding at the very end of the table may fall on the own pair; its neighbour is a negative.
        beside = torch.where(own == weights.shape[1] - 1, own - 1, own + 1)
        index = torch.where(index == own, beside, index)
        if is_true is None:
            return index
        # Rounding, or that neighbour, may be another true pair; the likeliest one is not, unless all are.
        for instead in (wrong.argmax(-1), own):
            index = torch.where(is_true.gather(1, index[:, None])[:, 0], instead, index)
        return index

    of_text, of_video = (None, None) if true_pairs is None else true_pairs
    return Negatives(draw(text_to_video, "negative video", of_text), draw(video_to_text, "negative text", of_video))


def own_places(rows: Tensor) -> Tensor:
    """Places of this rank's B rows in the global batch: (B, ...) -> (B,)."""
    return torch.arange(len(rows), device=rows.device) + rank() * len(rows)


class Pool(NamedTuple):
    """Clips beside texts: text (K, L, E), text_mask (K, L) and text_lengths (K,)."""

    video: VideoTokens
    text: Tensor
    text_mask: Tensor
    text_lengths: Tensor


def interleave(positive: Tensor, wrong_video: Tensor, wrong_text: Tensor) -> Tensor:
    """(B, ...) three times -> (3·B, ...) in the released order: positive, wrong video, wrong text of each sample."""
    return torch.stack([positive, wrong_video, wrong_text], dim=1).flatten(0, 1)


def matching_loss(scores: Tensor, pairs_per_sample: int, is_counted: Tensor | None = None) -> TokenLoss:
    """Two-way cross-entropy of (B·p, 2) scores; the first of each sample's p pairs is the match.

    Args:
        is_counted: (B·p,) bool, False = left out.
    """
    target = torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device)
    target[::pairs_per_sample] = 1
    return token_loss(scores, target, is_counted=is_counted)
