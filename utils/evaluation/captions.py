"""Captions of a split, decoded in parts by the ranks, and their scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dataloaders.caption_split import CaptionSplit
from modules.batch import Batch, to_device
from modules.beam_search import SearchSettings
from modules.fusion_encoder import VideoTokens, join
from modules.tasks.captioning import CaptionModel
from modules.tokenizer import ClipTokenizer
from utils.evaluation.caption_metrics import CaptionScores, caption_scores
from utils.evaluation.loop import over_clips
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast
from utils.settings.groups import ReadSettings

# A decoding step reads all weights however many beams there are, so clips of several batches are decoded together.
BEAMS_TOGETHER = 256


class EncodedClips(Batch, total=False):
    """Clips of several batches together."""

    tokens: VideoTokens


def generate_captions(
    model: CaptionModel,
    batches: Iterable[Batch],
    runtime: Runtime,
    search: SearchSettings,
    settings: ReadSettings,
) -> tuple[dict[str, str], list[str]]:
    """Caption this rank's clips and gather those of all ranks.

    Args:
        batches: this rank's part of the clips, in order (dataloaders/retrieval.py, VideoDataset).

    Returns:
        Captions by video id, and the reasons of clips left out.

    Raises:
        BadVideos: as `over_clips`.
    """
    tokenizer = ClipTokenizer(model.config.vocab_size)

    def captions(encoded: EncodedClips) -> Sequence[Any]:
        tokens = model.decode(encoded["tokens"], search).tokens.tolist()
        return [(name, tokenizer.decode(row)) for name, row in zip(encoded["video_id"], tokens, strict=True)]

    encoded = _encoded(model, batches, runtime, settings.precision, clips_together(search.beam_size))
    found, skipped = over_clips(model, encoded, captions, runtime, settings)
    return dict(found), skipped


def clips_together(beams: int) -> int:
    """Number of clips to decode at once."""
    return -(-BEAMS_TOGETHER // beams)


def _encoded(
    model: CaptionModel, batches: Iterable[Batch], runtime: Runtime, precision: str, clips: int
) -> Iterator[EncodedClips]:
    """Encode batches one by one and join at least `clips` clips: tokens, ids, reasons and notes."""
    names: list[str] = []
    reasons: list[str] = []
    notes: list[list[str]] = []
    parts: list[VideoTokens] = []
    for batch in batches:
        with autocast(precision, runtime.device):
            parts.append(model.encode_video(to_device(batch, runtime.device), features_need_grad=False))
        names += batch["video_id"]
        reasons += batch["bad_video"]
        notes += batch.get("notes", [])
        if len(names) >= clips:
            yield {"tokens": join(parts), "video_id": names, "bad_video": reasons, "notes": notes}
            names, reasons, notes, parts = [], [], [], []
    if names:
        yield {"tokens": join(parts), "video_id": names, "bad_video": reasons, "notes": notes}


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
