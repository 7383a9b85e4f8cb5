"""The parts of a sample that every dataset shares: text, masks, clip, boxes; and how samples become a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dataloaders.decoders import Misfit, UnusableClip
from dataloaders.frames import FRAME_RULE, FrameSettings
from dataloaders.object_records import ObjectRecord
from dataloaders.transforms import frames_to_tensor
from modules.batch import Batch, finish_batch
from modules.boxes import PADDING, map_boxes_to_crop
from modules.config import VOCAB_SIZE, check_settings, setting
from modules.random_streams import numpy_generator
from modules.tokenizer import ClipTokenizer

Sample = dict[str, Any]
MAX_BAD_CLIPS = 100  # in a row
OUTSIDE = "all boxes of its object file are outside the frame"
MIN_MISFITS = 20  # of which it can be said that they are many
ORDERS = IN_ORDER, REVERSED, SHUFFLED = 0, 1, 2


class UnusableObjects(Misfit):
    """Boxes that cannot be laid on a clip's frames."""


class TooManyMisfits(ValueError):
    """Most clips do not fit the settings."""


class Replacements:
    """Clips that give no sample, so that others take their place; one for each data set and process.

    Damage is single. Where more than half of the clips do not fit the settings, the settings are wrong, and training on
    the rest would be another training than the one that was asked for.
    """

    def __init__(self) -> None:
        self.samples = self.misfits = 0

    def sample(self, count: int, make: Callable[[int], Sample]) -> Sample:
        """The first sample of `make(attempt)`, of `count` or MAX_BAD_CLIPS attempts, and as `skipped` why not earlier.

        Raises:
            UnusableClip: none of them gives one.
            TooManyMisfits: most clips so far do not fit the settings.
        """
        skipped: list[str] = []
        self.samples += 1
        for attempt in range(min(MAX_BAD_CLIPS, count)):
            try:
                sample = {**make(attempt), "skipped": skipped}
                self._count(next((note for note in sample["notes"] if OUTSIDE in note), ""))
                return sample
            except UnusableClip as error:
                skipped.append(str(error))
                last = error
                if not attempt and isinstance(error, Misfit):
                    self._count(str(error))
        raise type(last)(f"{len(skipped)} clips in a row cannot be used, the last one: {last}") from last

    def _count(self, misfit: str) -> None:
        self.misfits += bool(misfit)
        if misfit and self.misfits >= MIN_MISFITS and 2 * self.misfits > self.samples:
            raise TooManyMisfits(f"{self.misfits} of {self.samples} clips do not fit the settings, the last: {misfit}")


@dataclass(frozen=True)
class SampleChoices:
    """How frames, boxes and captions become samples."""

    train_frame_order: int = setting(
        IN_ORDER, "order of frames in training: 0 as is, 1 reversed, 2 shuffled", choices=ORDERS
    )
    eval_frame_order: int = setting(
        IN_ORDER, "order of frames in evaluation: 0 as is, 1 reversed, 2 shuffled", choices=ORDERS, seen=True
    )
    box_coordinates: str = setting(
        "original", "pixels of the boxes in the files", choices=("original", "crop"), seen=True
    )
    mask_ratio: float = setting(0.15, "share of tokens masked for masked language modelling", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class SampleSettings:
    """The settings by which clips and captions become tensors.

    resolution: R, side of the model's picture. max_frames: T. max_words: W. vocab_size: ids of the tokenizer.
    object_count: O, or 0 for a model without objects. frames: which frames. choices: what a user chooses, of which the
    order of frames in training holds where `is_training` (boxes go with their frames). seed: of every random choice.
    """

    resolution: int
    max_frames: int = 12
    max_words: int = 32
    vocab_size: int = VOCAB_SIZE
    object_count: int = 0
    frames: FrameSettings = FrameSettings()
    choices: SampleChoices = SampleChoices()
    is_training: bool = False
    seed: int = 42

    @property
    def frame_order(self) -> int:
        """IN_ORDER, REVERSED or SHUFFLED."""
        return self.choices.train_frame_order if self.is_training else self.choices.eval_frame_order

    def seen(self) -> dict[str, Any]:
        """All settings that a clip's tensors depend on, as plain values by name, for the key of a cache."""
        values = {**vars(self), **vars(self.frames), "frame_order": self.frame_order}
        values |= {name: getattr(self.choices, name) for name in ("box_coordinates", "mask_ratio")}
        values["frame_rule"] = FRAME_RULE
        return {name: value for name, value in values.items() if name not in ("frames", "choices", "is_training")}


@dataclass(frozen=True)
class ClipFrames:
    """Picked frames of one clip and the sizes that its boxes are mapped by, (width, height) in pixels.

    frame_indices: numbers of the frames in the video, where they are known. notes: what is to be said of the reading.
    """

    frames: Sequence[np.ndarray]
    original_size: tuple[int, int] | None
    stored_size: tuple[int, int]
    frame_indices: Sequence[int] | None = None
    notes: Sequence[str] = ()


def text_part(token_ids: Sequence[int] | np.ndarray, tokenizer: ClipTokenizer, max_words: int) -> Sample:
    """`text_ids` (W,) and `text_mask` (W,) of a caption's pieces, cut to fit between start and end token."""
    ids, mask = tokenizer.pad_ids(token_ids, max_words)
    return {"text_ids": torch.from_numpy(ids), "text_mask": torch.from_numpy(mask).bool()}


def tag_part(
    token_ids: Sequence[int] | np.ndarray,
    is_noun: np.ndarray,
    is_verb: np.ndarray,
    tokenizer: ClipTokenizer,
    max_words: int,
) -> Sample:
    """`noun_mask`, `verb_mask` and `word_ends` (W,) of a caption's L pieces and their tags (L,).

    Of a word that is cut, the last piece that is left ends it.
    """
    ends = tokenizer.ends_word(token_ids[: max_words - 2])
    ends[-1:] = True
    return {
        "noun_mask": _flags_part(is_noun, max_words),
        "verb_mask": _flags_part(is_verb, max_words),
        "word_ends": _flags_part(ends, max_words),
    }


def _flags_part(flags: np.ndarray, max_words: int) -> torch.Tensor:
    """Flags of a caption's pieces at their text positions: (W,) bool; the start token stands at 0."""
    mask = np.zeros(max_words, dtype=bool)
    kept = flags[: max_words - 2]
    mask[1 : 1 + len(kept)] = kept
    return torch.from_numpy(mask)


def training_targets(length: int, settings: SampleSettings, key: int) -> Sample:
    """Random targets of the language-modelling losses, a function of the sample's key.

    Args:
        length: tokens of the text, start and end included.

    Returns:
        `mlm_mask` (W,): each inner position with probability `mask_ratio`, at least one; the end token of an empty
        text. `plm_start`: first predicted token, uniform in 1..length-1. `random_keys`: the key.
    """
    draw = numpy_generator(key, "text")
    marked = np.zeros(settings.max_words, dtype=bool)
    inner = length - 2
    marked[1 : 1 + inner] = draw.random(inner) < settings.choices.mask_ratio
    if not marked.any():
        marked[int(draw.integers(1, 1 + inner)) if inner else 1] = True
    return {
        "mlm_mask": torch.from_numpy(marked),
        "plm_start": torch.tensor(int(draw.integers(1, length))),
        "random_keys": torch.tensor(key),
    }


def clip_part(clip: ClipFrames, record: ObjectRecord | None, settings: SampleSettings, key: int, name: str) -> Sample:
    """`video` (T, 3, R, R) uint8, `video_mask` (T,), and, for a model with objects, the boxes of the same frames.

    Raises:
        UnusableObjects: the original size, which boxes are mapped by, is unknown; or boxes are of other frames.
    """
    order = frame_order(len(clip.frames), settings.frame_order, key)
    part: Sample = {
        "video": frames_to_tensor([clip.frames[i] for i in order], settings.resolution),
        "video_mask": torch.ones(len(order), dtype=torch.bool),
        "notes": list(clip.notes),
    }
    if settings.object_count:
        part.update(_object_part(clip, record, settings, order, name))
        if record is not None and _are_outside(record.boxes, clip, settings):
            part["notes"].append(f"{name}: {OUTSIDE}; it is seen without. Was it made of a video of another size?")
    return part


def frame_order(frames: int, kind: int, key: int) -> np.ndarray:
    """Order of the picked frames in a clip, (T,) indices: as they are, reversed or shuffled by the key."""
    if kind == REVERSED:
        return np.arange(frames)[::-1]
    return numpy_generator(key, "frame order").permutation(frames) if kind == SHUFFLED else np.arange(frames)


def _object_part(
    clip: ClipFrames, record: ObjectRecord | None, settings: SampleSettings, order: np.ndarray, name: str
) -> Sample:
    frames, count = len(order), settings.object_count
    if record is None:
        boxes = np.full((frames, count, 4), PADDING, dtype=np.float32)
        trajectory = np.zeros((frames, count), dtype=np.int64)
        ids = np.zeros(2 * count, dtype=np.int64)
    else:
        if len(record.boxes) != frames:
            raise UnusableObjects(f"{name}: {frames} sampled frames, but objects of {len(record.boxes)} frames")
        _check_same_frames(clip.frame_indices, record.frame_indices, name)
        boxes = _crop_boxes(record.boxes, clip, settings, name)[order]
        trajectory = np.where(boxes[..., 0] == PADDING, 0, record.tracks[order])
        ids = _present(record.trajectory_ids, trajectory)
    return {
        "boxes": torch.from_numpy(boxes),
        "box_trajectory": torch.from_numpy(trajectory),
        "trajectory_ids": torch.from_numpy(ids),
    }


def _check_same_frames(sampled: Sequence[int] | None, detected: np.ndarray | None, name: str) -> None:
    """Boxes must be of the frames that are read: an earlier rule chose others of a video whose rate varies."""
    if sampled is not None and detected is not None and list(sampled) != detected.tolist():
        raise UnusableObjects(
            f"{name}: its object file is of the frames {detected.tolist()}, but {list(sampled)} are read. It was made "
            "with other settings, or by a version that chose frames by number: run utils/extract_objects.py again"
        )


def _crop_boxes(boxes: np.ndarray, clip: ClipFrames, settings: SampleSettings, name: str) -> np.ndarray:
    if settings.choices.box_coordinates == "crop":
        side = (settings.resolution, settings.resolution)
        return map_boxes_to_crop(boxes, side, side, settings.resolution)
    if clip.original_size is None:
        raise UnusableObjects(
            f"{name}: the shard does not say how large the video was (released shards do not), so its boxes cannot be "
            "mapped; give the sizes with --frame_sizes FILE, or --box_coordinates crop if the boxes are in crop pixels"
        )
    return map_boxes_to_crop(boxes, clip.original_size, clip.stored_size, settings.resolution)


def _are_outside(boxes: np.ndarray, clip: ClipFrames, settings: SampleSettings) -> bool:
    """Whether there are boxes and all are outside the frame: of another size, or of another video."""
    side = (settings.resolution, settings.resolution)
    width, height = side if settings.choices.box_coordinates == "crop" else clip.original_size or side
    is_box = boxes[..., 0] != PADDING
    return bool(is_box.any() and not (is_box & (boxes[..., 0] < width) & (boxes[..., 1] < height)).any())


def _present(ids: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """Trajectory ids that still have a box inside the crop, packed to the front."""
    kept = [i for i in ids.tolist() if i and (trajectory == i).any()]
    return np.array(kept + [0] * (len(ids) - len(kept)), dtype=np.int64)


def collate(samples: Sequence[Sample], **more: torch.Tensor) -> Batch:
    """Stack tensors, keep everything else as lists, add `more`, and finish the batch (modules/batch.py)."""
    stacked = {
        name: torch.stack([s[name] for s in samples]) if torch.is_tensor(value) else [s[name] for s in samples]
        for name, value in samples[0].items()
    }
    return finish_batch({**stacked, **more})
