"""Text-video retrieval of a model on a test set: sharded over ranks, gathered, re-ranked, scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataloaders.caption_split import CaptionSplit
from modules.batch import Batch
from modules.caption_scoring import CaptionScorer
from modules.config import ModelConfig, check_settings, setting
from modules.fusion_encoder import VideoTokens, pad_columns
from modules.objectives.captions import CaptionScores
from modules.reranking import PairScorer, Probabilities, Reranked, TextTokens, rerank_both
from modules.tokenizer import ClipTokenizer
from utils.evaluation.loop import over_clips
from utils.evaluation.metrics import dual_softmax, retrieval_metrics, text_to_video_ranks, video_to_text_ranks
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast
from utils.settings.groups import ReadSettings

TEXTS_TOGETHER = 256  # encoded at once
Observer = Callable[[Batch, VideoTokens], None]
MATCHING, CAPTION = "matching", "caption"


@dataclass(frozen=True)
class RankingSettings:
    """How a test set is ranked."""

    rerank_top: int = setting(32, "candidates that are re-ranked; 0: none", minimum=0)
    dsl: bool = setting(False, "report dual-softmax normalised results too; they use all test queries at once")
    rerank_by: str = setting(
        MATCHING,
        "re-ranks by the matching head, or by how likely the clip makes the text, for which --init_model has learned "
        "captions",
        choices=(MATCHING, CAPTION),
    )

    def __post_init__(self) -> None:
        check_settings(self)


FIRST_STAGE = RankingSettings(rerank_top=0)


class VideoBank(NamedTuple):
    """Encoded clips of all ranks on the host, in order; those that could be read."""

    tokens: VideoTokens
    kept: list[int]  # index of each clip in the data set
    skipped: list[str]  # reasons of those left out


class TextBank(NamedTuple):
    """Texts of a test set on the host: ids (M, W), lengths (M,), end-token features (M, E) fp32."""

    ids: Tensor
    lengths: Tensor
    features: Tensor


@dataclass
class RetrievalResult:
    """Scores (M, V) of a test set: `first_stage` float32, and the final ones by direction, float64."""

    split: CaptionSplit  # what was scored
    skipped: list[str]
    first_stage: Tensor
    final: Reranked
    ranking: RankingSettings

    def ranks(self) -> dict[str, np.ndarray]:
        """Ranks from 0 of each text's video (`t2v`) and of each video's texts (`v2t`), by the final scores."""
        return self._ranks(self.final)

    def _ranks(self, scores: Reranked) -> dict[str, np.ndarray]:
        owner = self.split.caption_video
        return {
            "t2v": text_to_video_ranks(scores.text_to_video.numpy(), owner),
            "v2t": video_to_text_ranks(scores.video_to_text.numpy(), owner),
        }

    def metrics(self) -> dict[str, Any]:
        """`t2v_*` and `v2t_*` of the final scores; with re-ranking `first_stage_*`, with `dsl` `dsl_*` too."""
        scores = {"": self.final}
        if self.ranking.rerank_top:
            scores["first_stage_"] = Reranked(self.first_stage, self.first_stage)
        if self.ranking.dsl:
            similarity = self.first_stage.numpy()
            columns = torch.from_numpy(dual_softmax(similarity.T).T)
            scores["dsl_"] = Reranked(torch.from_numpy(dual_softmax(similarity)), columns)
        result: dict[str, Any] = {"texts": len(self.split.captions), "videos": len(self.split.video_ids)}
        # CLIP4Clip takes the lower median from several captions per video to videos, the mean of both elsewhere.
        is_grouped = len(self.split.captions) > len(self.split.video_ids)
        for prefix, both in scores.items():
            for direction, ranks in self._ranks(both).items():
                values = retrieval_metrics(ranks, lower_median=is_grouped and direction == "t2v")
                result |= {f"{prefix}{direction}_{name}": value for name, value in values.items()}
        return result


@torch.no_grad()
def evaluate_retrieval(
    model: Any,
    split: CaptionSplit,
    videos: Iterable[Batch],
    runtime: Runtime,
    settings: ReadSettings,
    ranking: RankingSettings = FIRST_STAGE,
    observe: Observer | None = None,
) -> RetrievalResult:
    """Rank clips by their score with each text, and texts by their score with each clip.

    Args:
        model: a backbone; with `rerank_top` one that has what `rerank_by` says. Left in evaluation mode.
        split: captions of the clips.
        videos: this rank's part of the clips of `split`, in order (dataloaders/retrieval.py, VideoDataset).
        observe: as in `encode_videos`.

    Raises:
        BadVideos: as `over_clips`.
    """
    bank = encode_videos(model, videos, runtime, settings, with_objects=bool(ranking.rerank_top), observe=observe)
    split = split.only(split.video_ids[index] for index in bank.kept)
    texts = encode_texts(model, split.captions, runtime, settings)
    similarity = first_stage(model, texts, bank.tokens, runtime)
    final = Reranked(similarity.double(), similarity.double())
    if ranking.rerank_top:
        scores = pair_scores(model, texts, bank.tokens, runtime, settings, ranking.rerank_by)
        is_pairwise = ranking.rerank_by == CAPTION or model.matching_head.is_pairwise
        final = rerank_both(similarity, ranking.rerank_top, scores, is_pairwise)
    return RetrievalResult(split, bank.skipped, similarity, final, ranking)


def encode_videos(
    model: Any,
    videos: Iterable[Batch],
    runtime: Runtime,
    settings: ReadSettings,
    *,
    with_objects: bool,
    observe: Observer | None = None,
) -> VideoBank:
    """Encode this rank's clips and gather those of all ranks.

    Args:
        with_objects: keep what the second stage reads: trajectories and actions.
        observe: is shown each batch of this rank, on the device and under autocast, with all of its tokens.

    Raises:
        BadVideos: as `over_clips`.
    """
    config: ModelConfig = model.config
    parts: list[VideoTokens] = []

    def encode(batch: Batch) -> Sequence[int]:
        tokens = model.encode_video(batch, features_need_grad=False)
        if observe is not None:
            observe(batch, tokens)
        if tokens.trajectories is not None:
            columns = config.num_trajectories
            tokens = tokens._replace(
                trajectories=pad_columns(tokens.trajectories, columns),
                trajectory_mask=pad_columns(tokens.trajectory_mask, columns),
            )
        if not with_objects:
            tokens = VideoTokens(tokens.frames, tokens.frame_mask, None, None, None)
        is_readable = torch.tensor([not reason for reason in batch["bad_video"]])
        parts.append(tokens.apply(lambda part: part.cpu()[is_readable]))
        return batch["index"]

    kept, skipped = over_clips(model, videos, encode, runtime, settings)
    return VideoBank(_gather_videos(parts, config, runtime, with_objects=with_objects), kept, skipped)


def _gather_videos(
    parts: list[VideoTokens], config: ModelConfig, runtime: Runtime, *, with_objects: bool
) -> VideoTokens:
    """Clips of all ranks in rank order; a rank may have none, so sizes come from the configuration."""
    width, trajectories = config.embed_dim, config.num_trajectories if config.has_trajectories and with_objects else 0
    actions = config.num_actions if config.has_actions and with_objects else 0
    further = max(runtime.gather_json(max((_columns(part.further) for part in parts), default=0)))

    def everywhere(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        mine = [torch.empty(0, *shape, dtype=dtype), *(getattr(part, name).to(dtype) for part in parts)]
        return gather_rows(torch.cat(mine), runtime)

    return VideoTokens(
        everywhere("frames", (config.max_frames, width)),
        everywhere("frame_mask", (config.max_frames,), torch.bool),
        everywhere("trajectories", (trajectories, width)) if trajectories else None,
        everywhere("trajectory_mask", (trajectories,), torch.bool) if trajectories else None,
        everywhere("actions", (actions, width)) if actions else None,
        everywhere("further", (further, width)) if further else None,
        everywhere("further_mask", (further,), torch.bool) if further else None,
    )


def _columns(tokens: Tensor | None) -> int:
    return 0 if tokens is None else tokens.shape[1]


def encode_texts(model: Any, captions: list[str], runtime: Runtime, settings: ReadSettings) -> TextBank:
    """End-token features of all captions, encoded in parts by the ranks, and the ids to encode them again from."""
    tokenizer = ClipTokenizer(model.config.vocab_size)
    padded = [tokenizer.to_tensor_ids(caption, model.config.max_words) for caption in captions]
    ids = torch.from_numpy(np.stack([row for row, _ in padded]))
    lengths = torch.from_numpy(np.stack([mask.sum() for _, mask in padded]))
    mine = own_part(len(captions), runtime)
    features = [torch.empty(0, model.config.embed_dim)]
    for start in range(mine.start, mine.stop, TEXTS_TOGETHER):
        part = torch.arange(start, min(start + TEXTS_TOGETHER, mine.stop))
        with autocast(settings.precision, runtime.device):
            tokens = _encode(model, ids, lengths, part, runtime)
        features.append(model.text_feature(tokens, lengths[part].to(runtime.device)).float().cpu())
    return TextBank(ids, lengths, gather_rows(torch.cat(features), runtime))


def _encode(model: Any, ids: Tensor, lengths: Tensor, index: Tensor, runtime: Runtime) -> Tensor:
    """Tokens of the texts `index`, cut to the longest of them."""
    return model.encode_text(ids[index, : int(lengths[index].max())].to(runtime.device))


def first_stage(model: Any, texts: TextBank, videos: VideoTokens, runtime: Runtime) -> Tensor:
    """First-stage logits (M, V), the rows shared out among the ranks."""
    device = runtime.device
    mine = own_part(len(texts.features), runtime)
    frames, mask = videos.frames.to(device), videos.frame_mask.to(device)
    rows = model.similarity_matrix(texts.features[mine].to(device), frames, mask)
    return gather_rows(rows.float().cpu(), runtime)


def pair_scores(
    model: Any, texts: TextBank, videos: VideoTokens, runtime: Runtime, settings: ReadSettings, by: str = MATCHING
) -> Probabilities:
    """Scores in 0..1 of groups of pairs by their indices, the groups shared out among the ranks.

    Args:
        by: as `RankingSettings.rerank_by`.
    """

    def tokens(index: Tensor) -> TextTokens:
        return TextTokens(_encode(model, texts.ids, texts.lengths, index, runtime), texts.lengths[index])

    device, lengths = runtime.device, texts.lengths
    scorer: PairScorer | CaptionScorer
    if by == CAPTION:
        objective, words = model.objective(CaptionScores), model.clip.word_vectors
        scorer = CaptionScorer(objective, model.fusion, words, videos, tokens, texts.ids, lengths, device)
    else:
        scorer = PairScorer(model.fusion, model.matching_head, videos, tokens, lengths, device)

    def probabilities(text_index: Tensor, video_index: Tensor) -> Tensor:
        mine = own_part(len(text_index), runtime)
        with autocast(settings.precision, runtime.device):
            own = scorer.probabilities(text_index[mine], video_index[mine])
        return gather_rows(own, runtime)

    return probabilities


def own_part(length: int, runtime: Runtime) -> slice:
    """This rank's contiguous part of `length` items; parts differ by one at most."""
    return slice(length * runtime.rank // runtime.world_size, length * (runtime.rank + 1) // runtime.world_size)


def gather_rows(mine: Tensor, runtime: Runtime) -> Tensor:
    """Rows (n, ...) of all ranks in rank order, on the host; ranks may have different numbers of them, also none."""
    if runtime.world_size == 1:
        return mine
    counts = [int(n) for n in runtime.gather_tensors(torch.tensor([len(mine)]))]
    padded = mine.new_zeros(max(counts), *mine.shape[1:], dtype=torch.uint8 if mine.dtype == torch.bool else mine.dtype)
    padded[: len(mine)] = mine
    parts = runtime.gather_tensors(padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(mine.dtype)
