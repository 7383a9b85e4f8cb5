"""Second stage of retrieval: the matching head scores the best candidates of the first stage, from cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modules.fusion_encoder import FusionEncoder, Projected, VideoTokens
from modules.heads import MatchingHead

OFFSET = 1000.0  # lifts re-ranked entries above every first-stage logit (at most 100)
# A pass should fit into a CPU's caches (1.4 to 1.8 times as fast as 256 there); other devices need larger ones.
PAIRS_PER_PASS = {"cpu": 32, "other": 256}


class TextTokens(NamedTuple):
    """tokens (K, L, E) of the text tower, without positions; lengths (K,), start and end token included."""

    tokens: Tensor
    lengths: Tensor


def match_weights(similarity: Tensor, probability: Tensor) -> Tensor:
    """softmax over the candidates of their similarity, times P(match): both (Q, k) -> (Q, k) in 0..1."""
    return similarity.double().softmax(-1) * probability.double()


def rerank(similarity: Tensor, candidates: Tensor, probability: Tensor) -> Tensor:
    """Replace the candidates' first-stage scores so that they rank before all others, by the released rule.

    Computed in double precision: in single precision the offset would round near candidates to equal scores.

    Args:
        similarity: (Q, N) first-stage logits.
        candidates: (Q, k) columns of each query's k best items.
        probability: (Q, k) P(match) of these.

    Returns:
        (Q, N) float64: softmax_k(similarity) · P(match) · 1000 + 1000 for candidates, the first-stage score elsewhere.
    """
    scores = similarity.double()
    weights = match_weights(scores.gather(1, candidates), probability)
    return scores.scatter(1, candidates, weights * 1000 + OFFSET)


class Reranked(NamedTuple):
    """Scores (M, V) float64: `text_to_video` is to be compared along rows, `video_to_text` along columns."""

    text_to_video: Tensor
    video_to_text: Tensor


Probabilities = Callable[[Tensor, Tensor], Tensor]  # (Q, k) text indices, (Q, k) video indices -> (Q, k) P(match)


def rerank_both(similarity: Tensor, top: int, probabilities: Probabilities, is_pairwise: bool) -> Reranked:
    """Re-rank the `top` best videos of each text, and, from the first-stage scores again, texts of each video.

    Args:
        similarity: (M, V) first-stage logits on the host; fewer than `top` videos or texts are all re-ranked.
        probabilities: `PairScorer.probabilities`, or the same spread over processes.
        is_pairwise: a pair's score depends on nothing else, so pairs that are candidates both ways are scored once.
    """
    texts, videos = similarity.shape
    best_videos = similarity.topk(min(top, videos)).indices
    own_text = torch.arange(texts)[:, None].expand_as(best_videos)
    matching = probabilities(own_text, best_videos)
    text_to_video = rerank(similarity, best_videos, matching)

    best_texts = similarity.t().topk(min(top, texts)).indices
    own_video = torch.arange(videos)[:, None].expand_as(best_texts)
    if is_pairwise:
        known = torch.full(similarity.shape, float("nan")).scatter(1, best_videos, matching)
        unknown = known[best_texts, own_video].isnan()
        pairs = best_texts[unknown], own_video[unknown]
        known[pairs] = probabilities(*(index[:, None] for index in pairs))[:, 0]
        matching = known[best_texts, own_video]
    else:
        matching = probabilities(best_texts, own_video)
    return Reranked(text_to_video, rerank(similarity.t(), best_texts, matching).t())


class PairScorer:
    """P(match) of many text-video pairs, from cached features, in bounded memory.

    Work is not repeated or spent on padding: the first fusion block's projections are computed once per item of a chunk
    (`items_per_chunk` at most), pairs of similar size go through the encoder together and are cut to the longest of
    them, and the last block runs for the two rows that the matching head reads.

    Args:
        fusion, head: of a model in evaluation mode.
        videos: cached clips, on the host or the device.
        texts: gives the tokens of the texts `index` (K,), cut to the longest of them.
        lengths: (M,) tokens of every text, start and end included, on the host.
        device: where to compute.
        pairs_per_pass, items_per_chunk: bounds of memory; by default `PAIRS_PER_PASS` of the kind of device.
    """

    def __init__(
        self,
        fusion: FusionEncoder,
        head: MatchingHead,
        videos: VideoTokens,
        texts: Callable[[Tensor], TextTokens],
        lengths: Tensor,
        device: torch.device,
        pairs_per_pass: int | None = None,
        items_per_chunk: int = 1024,
    ) -> None:
        self.fusion, self.head, self.videos, self.texts = fusion, head, videos, texts
        self.device, self.items_per_chunk = device, items_per_chunk
        self.pairs_per_pass = pairs_per_pass or PAIRS_PER_PASS["cpu" if device.type == "cpu" else "other"]
        self.text_lengths = lengths
        self.context_lengths = _context_lengths(videos)

    @torch.no_grad()
    def probabilities(self, text_index: Tensor, video_index: Tensor) -> Tensor:
        """P(match) of groups of pairs: (Q, k) indices on the host, twice -> (Q, k) float32 on the host.

        A group is one query's candidates; with the released normalisation the scores of a group depend on each other.
        """
        parts = [torch.empty(0, *text_index.shape[1:])]
        for groups in self._chunks(text_index, video_index):
            rows = self._rows(text_index[groups].flatten(), video_index[groups].flatten())
            scores = self.head(rows.unflatten(0, text_index[groups].shape))
            parts.append(scores.softmax(-1)[..., 1].cpu())
        return torch.cat(parts)

    def _chunks(self, text_index: Tensor, video_index: Tensor) -> Iterator[slice]:
        """Consecutive groups with a bounded number of different items on either side."""
        start, known = 0, (set[int](), set[int]())
        for group, pair in enumerate(zip(text_index.tolist(), video_index.tolist(), strict=True)):
            new = [set(items) - items_known for items, items_known in zip(pair, known, strict=True)]
            sizes = [len(a) + len(b) for a, b in zip(new, known, strict=True)]
            if group > start and max(sizes) > self.items_per_chunk:
                yield slice(start, group)
                start, known, new = group, (set(), set()), [set(items) for items in pair]
            for items_known, items in zip(known, new, strict=True):
                items_known.update(items)
        if start < len(text_index):
            yield slice(start, len(text_index))

    def _rows(self, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Frame-mean and end-token rows of K pairs: (K,), (K,) -> (K, 2, E)."""
        texts, text_of = text_index.unique(return_inverse=True)
        videos, video_of = video_index.unique(return_inverse=True)
        context, text = self._project_videos(videos), self._project_texts(texts)
        context_lengths, text_lengths = self.context_lengths[video_index], self.text_lengths[text_index]
        # Contexts that differ by less than 4 columns go together, ordered by text length: both need little padding.
        order = (context_lengths // 4 * (int(text_lengths.max()) + 1) + text_lengths).argsort(stable=True)
        rows = context.tokens.new_empty(len(order), 2, context.tokens.shape[-1])
        for part in order.split(self.pairs_per_pass):
            end = (text_lengths[part] - 1).to(self.device)
            rows[part.to(self.device)] = self.fusion.pair_rows(
                context.select(video_of[part].to(self.device), int(context_lengths[part].max())),
                text.select(text_of[part].to(self.device), int(text_lengths[part].max())),
                end,
            ).to(rows.dtype)
        return rows

    def _project_videos(self, index: Tensor) -> Projected:
        index = index.to(self.videos.frames.device)
        chosen = self.videos.apply(lambda part: part[index].to(self.device))
        return self.fusion.project_context(self.fusion.context(chosen))

    def _project_texts(self, index: Tensor) -> Projected:
        tokens, lengths = self.texts(index)
        mask = torch.arange(tokens.shape[1], device=self.device) < lengths.to(self.device)[:, None]
        return self.fusion.project_text(tokens.to(self.device), mask, (lengths - 1).to(self.device))


def _context_lengths(videos: VideoTokens) -> Tensor:
    """(V,) columns of each clip's context up to its last used trajectory, on the host."""
    count, frames = videos.frames.shape[:2]
    fixed = frames + 1 + sum(part.shape[1] for part in (videos.actions, videos.further) if part is not None)
    lengths = torch.full((count,), fixed)
    if videos.trajectory_mask is not None:
        lengths += videos.trajectory_mask.sum(1).cpu()
    return lengths
