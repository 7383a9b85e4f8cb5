"""A model's view of a video and a text: where its action queries look, and which words its tokens match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataloaders.frames import Clip
from dataloaders.label_map import class_names
from dataloaders.object_files import ObjectFiles
from dataloaders.object_records import ObjectRecord
from dataloaders.samples import ClipFrames, SampleSettings, clip_part, collate, frame_order
from dataloaders.tagged_text import tagged_text
from dataloaders.tagging import Tagger, make_tagger
from dataloaders.video_files import read_sampled
from modules.batch import Batch, to_device
from modules.objectives.set_matching import Pairs, SetMatching
from modules.random_streams import sample_key
from modules.tasks.pretrain import PretrainModel
from modules.tokenizer import ClipTokenizer
from utils.inference.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.precision import autocast

NOTHING = "–"


class WordMatch(NamedTuple):
    """The word that a token is matched to, whole, or NOTHING for the text's end token; and its score, a share of 1."""

    word: str
    score: float


@dataclass(frozen=True)
class Trajectory:
    """A trajectory that has a box in the clip; `match` is None where no noun was left for it."""

    id: int
    class_name: str
    match: WordMatch | None


@dataclass(frozen=True)
class Action:
    """What one action query read, and the verb that its token is matched to; None where none was left for it.

    Attributes:
        patches: float32 (T, G, G), attention over the patches of each frame.
        objects: float32 (T, O), attention over its object slots; with `patches` it sums to 1 in every frame.
        frames: float32 (T,), how much the action token read of each frame.
        clip: how much it read of the mean of the frames' [CLS] tokens; with `frames` it sums to 1.
    """

    patches: np.ndarray
    objects: np.ndarray
    frames: np.ndarray
    clip: float
    match: WordMatch | None


@dataclass(frozen=True)
class Explanation:
    """A video as the model saw it beside a text. T frames, O boxes per frame.

    Attributes:
        video: its path.
        text: what trajectories and actions are matched to.
        frames: T original frames, uint8 (H, W, 3), RGB.
        frame_indices: int64 (T,), their numbers in the video.
        fps: frames per second.
        resolution: R, side of the model's picture in pixels.
        boxes: float32 (T, O, 4), x1, y1, x2, y2 in pixels of the R x R picture; -1 for an empty slot.
        box_trajectory: int64 (T, O), the id of each box's trajectory, 0 for an empty slot.
        trajectories: those with a box, in the model's order, then those beyond its list of 2 * O, which are not
            matched; none is in a model without trajectory tokens.
        actions: one for each query; empty for a model without actions.
    """

    video: str
    text: str
    frames: list[np.ndarray]
    frame_indices: np.ndarray
    fps: float
    resolution: int
    boxes: np.ndarray
    box_trajectory: np.ndarray
    trajectories: list[Trajectory]
    actions: list[Action]

    @property
    def numbered_actions(self) -> list[tuple[int, Action]]:
        """Actions with the numbers of their queries, from 1; those that have a verb stand first."""
        numbered = list(enumerate(self.actions, 1))
        return sorted(numbered, key=lambda pair: pair[1].match is None or pair[1].match.word == NOTHING)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the original frames."""
        height, width = self.frames[0].shape[:2]
        return width, height


@torch.no_grad()
def explain(predictor: Predictor, video: str | Path, text: str | None = None) -> Explanation:
    """Run a model on a video and a text, and keep what it looked at.

    The matching is that of the pre-training losses (modules/objectives/set_matching.py): a noun or verb belongs to at
    most one trajectory or action, and so does, in the released form, the end token, which stands for nothing.

    Args:
        text: default: the caption that the checkpoint gives the video.

    Raises:
        UnreadableVideo: no frame can be had from it.
        CheckpointError: the model has no objects; or no text is given and the checkpoint does not caption.
        ValueError, FileNotFoundError, ImportError: files or the part-of-speech tagger are missing or do not fit.
    """
    model: PretrainModel = predictor.model(PretrainModel)
    config = model.config
    if not config.need_object:
        raise CheckpointError(
            f"{predictor.settings.init_model}: a model without objects has no boxes and no actions to show; name a "
            "checkpoint that was trained with --need_object"
        )
    settings = predictor.sample_settings(config)
    clip = read_sampled(video, settings)
    text = _own_caption(predictor, video) if text is None else text
    key = sample_key(settings.seed, 0, 0)
    if predictor.detector.is_given:
        raise ValueError("what a detector finds on the fly is not shown: make object files of it (--object_path)")
    objects = predictor.object_files(config)
    record = objects.get(Path(video).stem) if objects else None
    if objects and record is None:
        predictor.log(f"{objects.object_path}: no {Path(video).stem}.json; the model sees no object in {video}")
    batch, words = _batch(clip, record, text, settings, _tagger(predictor.settings.tagger), key, str(video))
    weights, matches = _run(predictor, model, batch, words)
    order = frame_order(len(clip.frames), settings.frame_order, key)
    return Explanation(
        video=str(video),
        text=text,
        frames=[clip.frames[place] for place in order],
        frame_indices=clip.frame_indices[order],
        fps=clip.fps,
        resolution=config.image_resolution,
        boxes=batch["boxes"][0].numpy(),
        box_trajectory=batch["box_trajectory"][0].numpy(),
        trajectories=_trajectories(batch, _classes(objects, record), matches.get("object_noun", {})),
        actions=_actions(weights, config.grid, matches.get("action_verb", {})),
    )


def _run(
    predictor: Predictor, model: PretrainModel, batch: Batch, words: Sequence[str]
) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, dict[str, dict[int, WordMatch]]]:
    """Attention weights of the actions, None for a model without them, and the word of each matched row by loss.

    The weights are those of the queries over sources (T, A, P + O) and of the actions over time (1, A, 1 + T).
    """
    on_device, matching = to_device(batch, predictor.runtime.device), model.objective(SetMatching)
    weights = None
    with autocast(predictor.settings.precision, predictor.runtime.device):
        visual = model.visual_tokens(on_device, features_need_grad=False)
        tokens = model.video_tokens(on_device, visual)
        text = model.encode_text(on_device["text_ids"])
        scores = matching.scores(on_device, tokens, text, set(matching.available))
        if model.action_encoder is not None:
            assert visual.objects is not None
            seen = (visual.early_tokens, visual.objects)
            weights = model.action_encoder.source_weights(*seen), model.action_encoder.frame_weights(*seen)
    pairs = matching.solve(batch, scores)
    return weights, {name: _matches(scores[name][0], pairs[name], words) for name in pairs}


@lru_cache(maxsize=2)
def _tagger(name: str) -> Tagger:
    return make_tagger(name)


def _own_caption(predictor: Predictor, video: str | Path) -> str:
    try:
        return predictor.caption([video])[str(video)]
    except CheckpointError as error:
        raise CheckpointError(f"{error}, or give the text with --text") from error


def _batch(
    clip: Clip,
    record: ObjectRecord | None,
    text: str,
    settings: SampleSettings,
    tagger: Tagger,
    key: int,
    name: str,
) -> tuple[Batch, list[str]]:
    """One clip and its text as a finished batch, and the word at each of the text's positions."""
    size = (clip.width, clip.height)
    part = clip_part(ClipFrames(clip.frames, size, size, clip.frame_indices.tolist()), record, settings, key, name)
    tagged = tagged_text(text, ClipTokenizer(settings.vocab_size), tagger, settings.max_words)
    inner = [tagged.words[number] for number in tagged.word_numbers[1:-1]]
    return collate([part | tagged.part]), ["", *inner, NOTHING]


def _matches(scores: np.ndarray, pairs: Pairs, words: Sequence[str]) -> dict[int, WordMatch]:
    """Word by row: scores (R, L) of one sample, and its pairs."""
    return {
        row: WordMatch(words[word], float(scores[row, word])) for row, word in zip(pairs.row, pairs.word, strict=True)
    }


def _classes(objects: ObjectFiles | None, record: ObjectRecord | None) -> dict[int, str]:
    """Class name by trajectory id."""
    if objects is None or record is None:
        return {}
    return record.named_trajectories(class_names(dict(objects.label_map)))


def _trajectories(batch: Batch, classes: dict[int, str], matches: dict[int, WordMatch]) -> list[Trajectory]:
    """Those of the model's list, in its order, then those of further boxes, which only the action queries see."""
    listed = batch["trajectory_ids"][0].tolist()[: batch["trajectory_counts"][0]]
    further = sorted(set(batch["box_trajectory"].flatten().tolist()) - {0, *listed})
    return [Trajectory(index, classes[index], matches.get(row)) for row, index in enumerate([*listed, *further])]


def _actions(
    weights: tuple[torch.Tensor, torch.Tensor] | None, grid: int, matches: dict[int, WordMatch]
) -> list[Action]:
    """From the attention that `_run` gives."""
    if weights is None:
        return []
    sources, frames = weights[0].cpu().numpy(), weights[1][0].cpu().numpy()
    return [
        Action(
            patches=sources[:, row, : grid * grid].reshape(-1, grid, grid),
            objects=sources[:, row, grid * grid :],
            frames=frames[row, 1:],
            clip=float(frames[row, 0]),
            match=matches.get(row),
        )
        for row in range(len(frames))
    ]
