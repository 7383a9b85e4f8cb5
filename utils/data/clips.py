"""From flags to datasets and loaders: what the tasks share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets.csv_files import object_names
from dataloaders.files import atomic_write_text
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectSettings, split_object_folder
from dataloaders.object_store import ObjectStore, build_object_store
from dataloaders.retrieval import ClipReader, RetrievalTrainDataset
from dataloaders.samples import SampleSettings, collate
from dataloaders.video_files import CachedVideos, open_videos
from modules.config import ModelConfig
from modules.utils_object_tractor import PROBLEMS
from utils.data.loaders import Loader
from utils.evaluation.bad_videos import BadVideos
from utils.runtime.distributed import Runtime
from utils.runtime.sampler import EvaluationSampler, GlobalBatchSampler
from utils.settings.arguments import Arguments, PairArguments
from utils.settings.groups import ReadSettings, UseSettings

Log = Callable[[str], None]
SHOWN_IDS = 10
# Problems of object files that are always worth a warning, and those that are where most boxes have them.
LOST = ("broken_files", "wrong_frame_counts", "rect_order_files", "malformed_objects")
MAY_BE_LOST = ("unknown_classes", "degenerate_boxes", "outside_boxes")
MANY_FILES = 20

logger = logging.getLogger(__name__)


def sample_settings(settings: UseSettings, config: ModelConfig, *, training: bool) -> SampleSettings:
    """The settings by which samples are made for a model."""
    return SampleSettings(
        resolution=config.image_resolution,
        max_frames=config.max_frames,
        max_words=config.max_words,
        vocab_size=config.vocab_size,
        object_count=config.object_count if config.need_object else 0,
        frames=settings.frames,
        choices=settings.samples,
        is_training=training,
        seed=settings.seed,
    )


def object_settings(settings: UseSettings, config: ModelConfig) -> ObjectSettings:
    """The settings by which a model's object files are read."""
    return ObjectSettings(config.object_count, config.max_frames, settings.objects)


def prepare_objects(
    settings: UseSettings,
    config: ModelConfig,
    object_path: str,
    log: Log,
    frame_sizes: Mapping[str, tuple[int, int]] | None = None,
    video_ids: Iterable[str] | None = None,
) -> Path:
    """The object store of a folder of object files, or of some of them, built if need be; its report is logged."""
    path = build_object_store(
        object_path,
        load_label_map(settings.labelmap_path),
        object_settings(settings, config),
        video_ids,
        frame_sizes=frame_sizes,
        workers=max(1, settings.num_thread_reader),
    )
    report = ObjectStore(path).report
    log(f"objects: {path}: {counts(report)}")
    _check_kept(report, object_path)
    _warn_of_lost(report, object_path)
    return path


def _check_kept(report: Mapping[str, Any], object_path: str) -> None:
    """A store of which nothing is kept would train a model with objects that sees none."""
    if not report["kept_boxes"]:
        examples = [text for shown in report["examples"].values() for text in shown]
        raise ValueError(
            f"{object_path}: no box of these object files can be used ({counts(report)}), so a model with objects sees "
            f"none (--object_path, --labelmap_path, --max_frames){''.join(f'; {text}' for text in examples[:3])}"
        )


def _warn_of_lost(report: Mapping[str, Any], object_path: str) -> None:
    """A warning of files that give no objects, of malformed ones, and of other reasons why most boxes are lost."""
    lost = [name for name in LOST if report[name]]
    lost += [name for name in MAY_BE_LOST if 2 * report[name] > report["boxes"]]
    if lost:
        text = "; ".join(f"{report[name]} {PROBLEMS[name]}, as {report['examples'][name][0]}" for name in lost)
        logger.warning(
            f"{object_path}: {report['kept_boxes']} of {report['boxes']} boxes are used; what is lost: {text}"
        )
    if report["files"] >= MANY_FILES and 90 < report.get("largest", 0) <= 100.5:
        logger.warning(
            f"{object_path}: no box of {report['files']} files reaches beyond {report['largest']:g}. Are they in "
            "percent? Boxes in pixels of the video are expected"
        )


def prepare_split_objects(args: Arguments, config: ModelConfig, name: str, log: Log) -> Path | None:
    """The object store of a split; one that is built serves every split with the same folder."""
    if not config.need_object:
        return None
    return prepare_objects(args, config, str(split_object_folder(args.object_path, name)), log)


def _prepare_named_objects(args: Arguments, config: ModelConfig, split: CaptionSplit, log: Log) -> Path:
    """The object store of videos whose ids are paths.

    One serves every split, unless object files lie in folders as the videos do: then it has the split's own.
    """
    stored = [split.object_names.get(video_id, video_id) for video_id in split.video_ids]
    only = stored if any("/" in stem for stem in stored) else None
    return prepare_objects(args, config, args.object_path, log, video_ids=only)


def counts(report: Mapping[str, Any]) -> str:
    """The counters of a report that are not 0, as text."""
    counted = {
        name: value for name, value in report.items() if isinstance(value, int) and value and name != "max_examples"
    }
    return ", ".join(f"{name} {value}" for name, value in counted.items()) or "nothing to report"


@dataclass(frozen=True)
class SplitClips:
    """A split without the videos that are not there, the reader of the others, and the ids of the missing ones."""

    split: CaptionSplit
    reader: ClipReader
    missing: list[str]


def open_clips(
    args: Arguments,
    config: ModelConfig,
    split: CaptionSplit,
    name: str,
    features_path: str,
    objects: Path | None,
    log: Log,
    *,
    training: bool,
) -> SplitClips:
    """Find the videos of a split; missing ones are counted, and listed in {output_dir}/missing_{name}_videos.txt.

    Raises:
        FileNotFoundError: none of the videos is there.
        BadVideos: some are missing, it is not for training, and --on_bad_video is error.
    """
    videos = open_videos(features_path, split.video_ids, split.files)
    missing = videos.missing
    if len(missing) == len(split.video_ids):
        raise FileNotFoundError(
            f"none of the {len(missing)} {name} videos is in {features_path} (--features_path); the first: {missing[0]}"
            + (", a path below that folder" if split.files else "")
        )
    if missing:
        shown = ", ".join(missing[:SHOWN_IDS]) + (", ..." if len(missing) > SHOWN_IDS else "")
        path = Path(args.output_dir) / f"missing_{name}_videos.txt"
        atomic_write_text(path, "".join(f"{video_id}\n" for video_id in missing))
        message = (
            f"{len(missing)} of {len(split.video_ids)} {name} videos are not in {features_path}: {shown} (list: {path})"
        )
        if not training and args.on_bad_video == "error":
            raise BadVideos(f"{message}. Leave them out of the results with --on_bad_video skip.")
        log(f"{message}; they are left out")
    store, cache = ObjectStore(objects) if objects else None, args.cache.open()
    source = videos if cache is None else CachedVideos(videos, cache)
    reader = ClipReader(source, sample_settings(args, config, training=training), store, split.object_names)
    return SplitClips(split.only(videos.video_ids), reader, missing)


def open_task_clips(args: Arguments, config: ModelConfig, split: CaptionSplit, name: str, log: Log) -> SplitClips:
    """Find videos and objects of a split of a downstream task; errors as `open_clips`."""
    objects: Path | None
    if split.files and config.need_object:
        split = replace(split, object_names=object_names(args.object_path, split.video_ids))
        objects = _prepare_named_objects(args, config, split, log)
    else:
        objects = prepare_split_objects(args, config, name, log)
    return open_clips(args, config, split, name, args.features_path, objects, log, training=name == "train")


class HasText(Protocol):
    """A question; `is_whole` where none of its texts is empty."""

    @property
    def is_whole(self) -> bool: ...


Q = TypeVar("Q", bound=HasText)


def whole_questions(questions: Sequence[Q], name: str, log: Log) -> list[Q]:
    """The questions of the split `name` without an empty text; the others are counted. ValueError if there are none."""
    kept = [question for question in questions if question.is_whole]
    if len(kept) < len(questions):
        log(f"{name}: {len(questions) - len(kept)} of {len(questions)} questions have an empty text and are left out")
    if not kept:
        raise ValueError(f"{name}: all questions have an empty text")
    return kept


def with_words(split: CaptionSplit, name: str, log: Log) -> CaptionSplit:
    """The split `name` without captions that hold no word, and videos that have no other; both are counted.

    Raises:
        ValueError: no caption is left.
    """
    kept = split.without_empty_captions()
    if len(kept.captions) < len(split.captions):
        count, videos = len(split.captions) - len(kept.captions), len(split.video_ids) - len(kept.video_ids)
        log(f"{name}: {count} captions have no word and are left out, and {videos} videos that have no other")
        if not kept.captions:
            raise ValueError(f"{name}: no caption holds a word")
    return kept


def open_captioned(args: Arguments, config: ModelConfig, split: CaptionSplit, name: str, log: Log) -> SplitClips:
    """Open videos and objects of a split, before the process group starts: the first run builds the object store.

    Captions without a word are left out.

    Raises:
        FileNotFoundError, ValueError: annotations or all videos are missing, or damaged.
        BadVideos: some evaluation videos are missing and --on_bad_video is error.
    """
    clips = open_task_clips(args, config, with_words(split, name, log), name, log)
    log(f"{name}: {len(clips.split.video_ids)} videos, {len(clips.split.captions)} captions")
    return clips


def training_pairs(
    args: PairArguments, clips: SplitClips, pairs: type[RetrievalTrainDataset] = RetrievalTrainDataset
) -> RetrievalTrainDataset:
    """Pairs of clip and caption to train on: every caption, or one per video drawn anew in each epoch."""
    return pairs(
        clips.split,
        clips.reader,
        expand=args.expand_msrvtt_sentences,
        similar_among=args.similar_batches,
        similar_group=args.similar_group,
        similar_after=args.similar_after,
    )


def train_loader(
    args: Arguments, dataset: Dataset, runtime: Runtime, collate_fn: Callable[..., Any] = collate
) -> tuple[Callable[[int, int], DataLoader], int]:
    """`make_loader(epoch, start_batch)` for the trainer, and the number of updates per epoch.

    Workers live as long as the loader: an epoch only moves the sampler. A data set with an `arrange` says which samples
    stand in one batch.

    Raises:
        ValueError: the run ends within the epochs of drawn batches that come before such.
    """
    arrange = getattr(dataset, "arrange", None)
    sampler = GlobalBatchSampler(
        len(dataset),  # type: ignore[arg-type]
        args.micro_batch_size,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=args.seed,
        arrange=arrange,
    )
    updates = sampler.batches_per_epoch // args.gradient_accumulation_steps
    _check_arranged(args, updates * getattr(arrange, "after", 0))
    loader = Loader(
        dataset,
        args.num_thread_reader,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        pin_memory=runtime.device.type == "cuda",
        persistent_workers=args.num_thread_reader > 0,
    )

    def make_loader(epoch: int, start_batch: int) -> DataLoader:
        sampler.set_position(epoch, start_batch)
        return loader

    return make_loader, updates


def _check_arranged(args: Arguments, drawn: int) -> None:
    """A run that ends before its first arranged batch must not pass for one that had some."""
    if drawn and args.max_steps and args.max_steps <= drawn:
        raise ValueError(
            f"--max_steps {args.max_steps} ends within the epochs of drawn batches (--similar_after), {drawn} "
            "updates: no batch would be of similar captions. Raise it, or lower --similar_after"
        )


def evaluation_loader(
    settings: ReadSettings, dataset: Dataset, runtime: Runtime, collate_fn: Callable[..., Any] = collate
) -> DataLoader:
    """This rank's part of the data, in order, no sample twice."""
    return Loader(
        dataset,
        settings.num_thread_reader,
        sampler=EvaluationSampler(len(dataset), runtime.rank, runtime.world_size),  # type: ignore[arg-type]
        batch_size=settings.batch_size_val,
        collate_fn=collate_fn,
        pin_memory=runtime.device.type == "cuda",
    )
