"""Second stage of retrieval by a language model: how likely each clip makes each of its candidate texts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.fusion_encoder import FusionEncoder, VideoTokens
from modules.objectives.next_tokens import NextTokens
from modules.reranking import TextTokens

PAIRS_PER_PASS = 32  # each has a distribution over the vocabulary for every token


class CaptionScorer:
    """Geometric mean of the probabilities of a text's tokens, given the clip and the tokens before: in 0..1 per pair.

    The mean, not the product: a product would prefer short texts to long ones wherever texts compete for a clip. Pairs
    of one text, and texts of similar length, go through the encoder together.

    Args:
        objective: the one whose rows predict tokens, with its vocabulary head; of a model in evaluation mode.
        fusion, words: of that model; words (V, E) are its token vectors.
        videos: cached clips, on the host or the device.
        texts: gives the tokens of the texts `index` (K,), cut to the longest of them.
        ids: (M, W) token ids of every text, on the host.
        lengths: (M,) tokens of every text, start and end included, on the host.
        device: where to compute.
        pairs_per_pass: bound of memory.
    """

    def __init__(
        self,
        objective: NextTokens,
        fusion: FusionEncoder,
        words: nn.Parameter | Tensor,
        videos: VideoTokens,
        texts: Callable[[Tensor], TextTokens],
        ids: Tensor,
        lengths: Tensor,
        device: torch.device,
        pairs_per_pass: int = PAIRS_PER_PASS,
    ) -> None:
        self.objective, self.fusion, self.words = objective, fusion, words
        self.videos, self.texts, self.ids, self.lengths = videos, texts, ids, lengths
        self.device, self.pairs_per_pass = device, pairs_per_pass
        self.trajectories = videos.trajectory_mask.sum(1).cpu() if videos.trajectory_mask is not None else None

    @torch.no_grad()
    def probabilities(self, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Of groups of pairs: (Q, k) indices on the host, twice -> (Q, k) float32 on the host."""
        text, video = text_index.flatten(), video_index.flatten()
        order = (self.lengths[text] * len(self.lengths) + text).argsort(stable=True)
        found = torch.empty(len(order), device=self.device)
        for part in order.split(self.pairs_per_pass) if len(order) else ():
            found[part.to(self.device)] = self._of_pairs(text[part], video[part])
        return found.cpu().view(text_index.shape)

    def _of_pairs(self, text: Tensor, video: Tensor) -> Tensor:
        """(K,), (K,) on the host -> (K,) float32."""
        distinct, place = text.unique(return_inverse=True)
        tokens, lengths = self.texts(distinct)
        rows = self.objective.rows(self.fusion, self._clips(video), tokens.to(self.device)[place.to(self.device)])
        predicted = lengths[place] - 1  # every token but the start
        is_token = torch.arange(rows.shape[1]) < predicted[:, None]
        index = is_token.flatten().nonzero()[:, 0]
        targets = self.ids[text, 1 : rows.shape[1] + 1].flatten()[index].to(self.device)
        logits = self.objective.head(rows.flatten(0, 1)[index.to(self.device)], self.words)
        loss = F.cross_entropy(logits.float(), targets, reduction="none")
        pair = (index // rows.shape[1]).to(self.device)
        total = torch.zeros(len(text), device=self.device).index_add(0, pair, loss)
        return (-total / predicted.to(self.device)).exp()

    def _clips(self, index: Tensor) -> VideoTokens:
        """Clips `index` on the device, without the columns of trajectories that none of them uses."""
        place = index.to(self.videos.frames.device)
        clips = self.videos.apply(lambda part: part[place].to(self.device))
        if self.trajectories is None or clips.trajectories is None or clips.trajectory_mask is None:
            return clips
        used = int(self.trajectories[index].max())
        return clips._replace(
            trajectories=clips.trajectories[:, :used], trajectory_mask=clips.trajectory_mask[:, :used]
        )
