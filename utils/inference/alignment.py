"""Which words the trajectories and action queries of a checkpoint find, on a folder of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataloaders.caption_files import captions_by_video
from dataloaders.retrieval import VideoDataset
from dataloaders.samples import collate
from dataloaders.video_files import find_videos
from modules.batch import Batch
from modules.tasks.pretrain import PretrainModel
from utils.evaluation.alignment import CaptionMatching, Figure, Matched, caption_matching, figure, shares
from utils.evaluation.loop import over_clips
from utils.evaluation.open_alignment import Opened, OpenWords, Sentence, TrueWords, open_shares
from utils.inference.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError

# Where captions are looked for in a folder: of a held-out split first.
CAPTION_FILES = ("test.csv", "MSRVTT_data.json", "raw-captions.pkl") + tuple(
    f"captions.{kind}" for kind in ("jsonl", "json", "csv", "tsv", "pkl")
)
WORDS = {
    "nouns": "things whose trajectory gets their noun",
    "end": "matched trajectories that get the end token",
    "in_caption": "trajectories whose class is in the caption",
    "named": "  of these, those that get a noun of their class",
    "in_caption_end": "  of these, those that get the end token",
    "open_nouns": "trajectories whose nearest noun of all is right",
    "precision": "motions that action queries name: precision",
    "recall": "  recall",
    "f1": "  F1",
}


class World(NamedTuple):
    """What is true of clips by video id, and the sentences that hold all words of their world."""

    true: Mapping[str, TrueWords]
    sentences: Sequence[Sentence]


class Clips(NamedTuple):
    """Captions of clips by path, of `caption_file`; and how many that it names have no video in the folder."""

    captions: dict[str, list[str]]
    caption_file: Path
    missing: int


class Scored(NamedTuple):
    """Figures by name (keys of WORDS, and `nouns_{n}`), and how many clips and captions they are of."""

    figures: dict[str, Figure]
    clips: int
    texts: int
    skipped: list[str]

    def by_words(self) -> dict[str, Figure]:
        """The figures by what they are."""
        return {_words(name): one for name, one in self.figures.items()}

    def content(self) -> dict[str, Any]:
        """For a JSON file."""
        figures = {name: one._asdict() for name, one in self.figures.items()}
        return {"clips": self.clips, "texts": self.texts, "skipped": self.skipped, "figures": figures}


def find_clips(folder: Path, captions: Path | None, count: int | None) -> Clips:
    """The first `count` clips of a caption file that are in a folder, or all.

    Args:
        captions: default: the first of CAPTION_FILES in the folder.

    Raises:
        FileNotFoundError, ValueError: no caption file, none of its videos, or it cannot be read; says the remedy.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (--data)")
    if captions is None:
        places = [folder / name for name in CAPTION_FILES]
        captions = next((place for place in places if place.is_file()), None)
        if captions is None:
            raise FileNotFoundError(f"{folder} has none of {', '.join(CAPTION_FILES)}; name the file with --captions")
    texts = captions_by_video(captions)
    videos = folder / "videos"
    paths, missing = find_videos(videos if videos.is_dir() else folder, texts)
    if not paths:
        raise FileNotFoundError(
            f"none of the {len(texts)} videos of {captions} is in {folder}; the first: {missing[0]}"
        )
    chosen = list(paths)[:count]
    return Clips({str(paths[video]): texts[video] for video in chosen}, captions, len(missing))


def score_alignment(predictor: Predictor, clips: Clips, world: World | None) -> Scored:
    """Match the trajectories of clips with their captions, and with all words of the world if there is one.

    Raises:
        CheckpointError: the model has no trajectories.
        FileNotFoundError, ValueError: no object files or label map, or none of these clips.
        BadVideos: a video cannot be read.
    """
    model: PretrainModel = predictor.model(PretrainModel)
    if not model.config.has_trajectories:
        raise CheckpointError(
            f"{predictor.settings.init_model}: a model without trajectories has nothing to match with nouns; name a "
            "checkpoint that was trained with --need_object"
        )
    reader = predictor.reader(model.config, list(clips.captions))
    matching = caption_matching(model, clips.captions, reader, predictor.settings)
    assert matching is not None
    objects = predictor.object_files(model.config)
    if objects is None or not any(objects.path(Path(path).stem) for path in clips.captions):
        raise ValueError(f"{predictor.settings.object_path} has no object file of these {len(clips.captions)} videos")
    words = None if world is None else OpenWords(model, world.sentences, predictor.runtime)

    def compute(batch: Batch) -> list[Any]:
        video = model.encode_video(batch, features_need_grad=False)
        opened = [None] * len(batch["video_id"]) if words is None else _opened(words, world, matching, batch, video)
        return list(zip(matching(batch, video), opened, strict=True))

    dataset = VideoDataset(list(clips.captions), reader)
    batches = predictor.batches(dataset, collate)
    values, skipped = over_clips(model, batches, compute, predictor.runtime, predictor.settings)
    matched = [[Matched(*one) for one in own] for own, _ in values]
    opened = [Opened(*own) for _, own in values if own is not None]
    found = {name: figure(one) for name, one in {**shares(matched), **open_shares(opened)}.items()}
    return Scored(found, len(values), sum(map(len, matched)), skipped)


def _opened(words: OpenWords, world: World | None, matching: CaptionMatching, batch: Batch, video: Any) -> list[Any]:
    """Counts of each clip; None of those without truth, or that cannot be read."""
    assert world is not None
    classes = [[] if reason else matching.classes(batch, row) for row, reason in enumerate(batch["bad_video"])]
    true = [world.true.get(Path(path).stem) for path in batch["video_id"]]
    counts = words(batch, video, classes, [own or TrueWords(set(), set()) for own in true])
    return [None if own is None else one for own, one in zip(true, counts, strict=True)]


def _words(name: str) -> str:
    things = name.removeprefix("nouns_")
    return WORDS.get(name, f"  of captions with {things} thing{'' if things == '1' else 's'}")
