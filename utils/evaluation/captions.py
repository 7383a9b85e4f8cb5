"""Captions of a split, decoded in parts by the ranks, and their scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from dataloaders.caption_split import CaptionSplit
from modules.batch import Batch, to_device
from modules.beam_search import SearchSettings
from modules.captioning import CaptionModel
from modules.fusion_encoder import VideoTokens, join
from modules.tokenizer import ClipTokenizer
from utils.evaluation.bad_videos import BadVideos, check_bad_videos
from utils.evaluation.caption_metrics import CaptionScores, caption_scores
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast

# A step of decoding reads all weights, for one beam as for many; the image side sets how many clips a batch may have.
BEAMS_TOGETHER = 256


@torch.no_grad()
def generate_captions(
    model: CaptionModel,
    batches: Iterable[Batch],
    runtime: Runtime,
    search: SearchSettings,
    *,
    precision: str = "fp32",
    on_bad_video: str = "error",
) -> tuple[dict[str, str], list[str]]:
    """Caption this rank's clips and gather those of all ranks.

    Args:
        model: left in evaluation mode.
        batches: this rank's part of the clips, in order (dataloaders/retrieval.py, VideoDataset).

    Returns:
        Captions by video id, and the reasons of clips left out.

    Raises:
        BadVideos: a clip cannot be read and `on_bad_video` is "error", or none can be read.
    """
    model.eval()
    tokenizer = ClipTokenizer(model.config.vocab_size)
    mine: list[tuple[str, str]] = []
    bad: list[str] = []
    for clips, video in _encoded(model, batches, runtime, precision, clips_together(search.beam_size)):
        with autocast(precision, runtime.device):
            found = model.decode(video, search)
        for (video_id, reason), tokens in zip(clips, found.tokens.tolist(), strict=True):
            if reason:
                bad.append(reason)
            else:
                mine.append((video_id, tokenizer.decode(tokens)))
    skipped = [reason for part in runtime.gather_json(bad) for reason in part]
    check_bad_videos(skipped, on_bad_video)
    captions = dict(entry for part in runtime.gather_json(mine) for entry in part)
    if not captions:
        raise BadVideos("none of the clips can be read")
    return captions, skipped


def clips_together(beams: int) -> int:
    """Clips that are decoded at once, where there are so many."""
    return -(-BEAMS_TOGETHER // beams)


def _encoded(
    model: CaptionModel, batches: Iterable[Batch], runtime: Runtime, precision: str, clips: int
) -> Iterator[tuple[list[tuple[str, str]], VideoTokens]]:
    """Batches encoded one by one and joined to at least `clips` clips, but for the last: (video id, why the clip cannot
    be read or "") of each, and their tokens.
    """
    names: list[tuple[str, str]] = []
    parts: list[VideoTokens] = []
    for batch in batches:
        with autocast(precision, runtime.device):
            parts.append(model.encode_video(to_device(batch, runtime.device), features_need_grad=False))
        names += zip(batch["video_id"], batch["bad_video"], strict=True)
        if len(names) >= clips:
            yield names, join(parts)
            names, parts = [], []
    if names:
        yield names, join(parts)


def score_captions(
    captions: dict[str, str],
    split: CaptionSplit,
    skipped: Sequence[str],
    runtime: Runtime,
    *,
    max_words: int,
    both_protocols: bool,
    timeout: float,
) -> Evaluation:
    """Compare captions with all references of their videos, on rank 0; every rank has the result.

    Args:
        split: references.
        skipped: reasons of clips that have no caption.
        max_words: the released protocol's references are cut to so many tokens, start and end included.
        both_protocols: the released protocol too, under `released_*`.
        timeout: seconds for each of the Java programs.

    Returns:
        Metrics of the field's protocol as fractions; `items` (video ids) with `scores` of each, for
        utils/compare_runs.py; `missing` metrics with the reason; predictions.json, and predictions_coco.json in COCO's
        results format.
    """
    references = {video_id: texts for video_id, texts in split.by_video().items() if video_id in captions}
    captions = {video_id: captions[video_id] for video_id in references}
    result: dict[str, Any] | None = None
    if runtime.is_main:
        field = caption_scores(captions, references, "field", max_words=max_words, timeout=timeout)
        result = _described(field)
        if both_protocols:
            released = caption_scores(captions, references, "released", max_words=max_words, timeout=timeout)
            result["metrics"] |= {f"released_{name}": value for name, value in released.scores.items()}
            result["missing"] |= {f"released {name}": reason for name, reason in released.missing.items()}
    result = runtime.gather_json(result)[0]
    assert result is not None
    metrics = {**result.pop("metrics"), "videos": len(captions), "skipped": len(skipped)}
    return Evaluation(metrics, {**result, "skipped_videos": list(skipped)}, _files(captions, references))


def _described(scores: CaptionScores) -> dict[str, Any]:
    return {
        "metrics": scores.scores,
        "tokenizer": scores.tokenizer,
        "missing": scores.missing,
        "items": list(scores.cider_by_video),
        "scores": {"CIDEr": list(scores.cider_by_video.values())},
    }


def _files(captions: dict[str, str], references: dict[str, list[str]]) -> dict[str, str]:
    predictions = [
        {"video_id": video_id, "prediction": caption, "references": references[video_id]}
        for video_id, caption in captions.items()
    ]
    coco = [{"image_id": video_id, "caption": caption} for video_id, caption in captions.items()]
    return {
        "predictions.json": json.dumps(predictions, indent=1, ensure_ascii=False) + "\n",
        "predictions_coco.json": json.dumps(coco, ensure_ascii=False) + "\n",
    }
