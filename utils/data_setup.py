"""From flags to datasets and loaders: what every task prepares before its process group starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from dataloaders.id_lists import read_frame_sizes
from dataloaders.label_map import load_label_map
from dataloaders.msrvtt import TextVideoPair, read_test_pairs
from dataloaders.object_store import ObjectSettings, ObjectStore, build_object_store
from dataloaders.pretrain_index import INDEX_FILE, PretrainIndex, prepare_pretrain_index
from dataloaders.retrieval import RetrievalTestDataset
from dataloaders.samples import SampleSettings, collate
from dataloaders.video_files import find_videos
from dataloaders.webvid import WebVidPretrainDataset
from modules.config import ModelConfig
from utils.arguments import Arguments
from utils.distributed import Runtime
from utils.pretrain_eval import collate_whole_captions
from utils.retrieval_eval import BadVideos
from utils.sampler import EvaluationSampler, GlobalBatchSampler

Log = Callable[[str], None]


def sample_settings(args: Arguments, config: ModelConfig, *, training: bool) -> SampleSettings:
    """How samples are made for this model under these flags."""
    return SampleSettings(
        resolution=config.image_resolution,
        max_frames=config.max_frames,
        max_words=config.max_words,
        object_count=config.object_count if config.need_object else 0,
        feature_framerate=args.feature_framerate,
        slice_framepos=args.slice_framepos,
        frame_order=args.train_frame_order if training else args.eval_frame_order,
        box_coordinates=args.box_coordinates,
        mask_ratio=args.mask_ratio,
        seed=args.seed,
    )


@dataclass(frozen=True)
class PreparedData:
    """Paths of what has been built from the annotations: the caption index, its shard folder, and object stores."""

    index: Path | None = None
    index_dir: Path | None = None
    objects: Path | None = None
    val_objects: Path | None = None
    frame_sizes: Mapping[str, tuple[int, int]] | None = None


def find_shards(args: Arguments) -> Path:
    """Folder of `path.index`: --features_path, else --train_csv if it is a folder, else the folder of --train_csv.

    Raises:
        FileNotFoundError: in none of them; lists the places.
    """
    train = Path(args.train_csv)
    places = [Path(args.features_path), train, train.parent]
    for place in places:
        if (place / INDEX_FILE).is_file():
            return place
    listed = "\n  ".join(str(place / INDEX_FILE) for place in places)
    raise FileNotFoundError(
        f"no shards: looked for\n  {listed}\n(--features_path, --train_csv, the folder of --train_csv). "
        "utils/webvid_to_tfrecord.py writes them."
    )


def prepare_pretraining(args: Arguments, config: ModelConfig, log: Log) -> PreparedData:
    """Build, or find built, the tagged captions and the object stores.

    Long on the first run: call it before the process group starts, so that no rank times out. The first process builds,
    the others wait.
    """
    index_dir = find_shards(args)
    workers = max(1, args.num_thread_reader)
    index = prepare_pretrain_index(args.data_path, index_dir, tagger=args.tagger, workers=workers)
    sizes = read_frame_sizes(args.frame_sizes) if args.frame_sizes else None
    objects = val_objects = None
    if config.need_object:
        objects = prepare_objects(args, config, args.object_path, log, sizes)
        if args.val_object_path:
            val_objects = prepare_objects(args, config, args.val_object_path, log)
    return PreparedData(index, index_dir, objects, val_objects, sizes)


def prepare_objects(
    args: Arguments,
    config: ModelConfig,
    object_path: str,
    log: Log,
    frame_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """The object store of a folder of object files, built if need be; its report goes to the log."""
    settings = ObjectSettings(config.object_count, args.object_rule, args.rect_order, config.max_frames)
    label_map = load_label_map(args.labelmap_path)
    path = build_object_store(
        object_path, label_map, settings, frame_sizes=frame_sizes, workers=max(1, args.num_thread_reader)
    )
    log(f"objects: {path}: {_counts(ObjectStore(path).report)}")
    return path


def _counts(report: Mapping[str, Any]) -> str:
    """The counters of a report that are not 0."""
    counted = {
        name: value for name, value in report.items() if isinstance(value, int) and value and name != "max_examples"
    }
    return ", ".join(f"{name} {value}" for name, value in counted.items()) or "nothing to report"


def pretraining_dataset(args: Arguments, config: ModelConfig, data: PreparedData, log: Log) -> WebVidPretrainDataset:
    assert data.index is not None and data.index_dir is not None
    index = PretrainIndex(data.index)
    log(f"captions: {data.index}: {_counts(index.report)}, tagged by {index.tagger}")
    store = ObjectStore(data.objects) if data.objects else None
    settings = sample_settings(args, config, training=True)
    return WebVidPretrainDataset(index, data.index_dir, settings, store, data.frame_sizes)


def validation_dataset(
    args: Arguments, config: ModelConfig, data: PreparedData, log: Log
) -> RetrievalTestDataset | None:
    """Test pairs of --val_csv with the clips in --val_features_path; None, with one line, when there are no clips.

    Raises:
        BadVideos: some clips are missing and --on_bad_video is error.
    """
    folder = args.val_features_path
    if folder is None or not Path(args.val_csv).is_file():
        log("validation is left out: it needs --val_csv and --val_features_path")
        return None
    pairs = read_test_pairs(args.val_csv)
    videos, missing = find_videos(folder, [pair.video_id for pair in pairs])
    if not videos:
        log(f"validation is left out: none of the {len(pairs)} clips of {args.val_csv} is in {folder}")
        return None
    if missing:
        message = f"{len(missing)} clips of {args.val_csv} are not in {folder}: {', '.join(missing)}"
        if args.on_bad_video == "error":
            raise BadVideos(f"{message}. Leave them out of the results with --on_bad_video skip.")
        log(f"{message}; their pairs are left out")
    kept: list[TextVideoPair] = [pair for pair in pairs if pair.video_id in videos]
    store = ObjectStore(data.val_objects) if data.val_objects else None
    return RetrievalTestDataset(kept, videos, sample_settings(args, config, training=False), store)


def train_loader(args: Arguments, dataset: Dataset, runtime: Runtime) -> tuple[Callable[[int, int], DataLoader], int]:
    """`make_loader(epoch, start_batch)` for the trainer, and the number of updates per epoch.

    Workers live as long as the loader: an epoch only moves the sampler.
    """
    sampler = GlobalBatchSampler(
        len(dataset),  # type: ignore[arg-type]
        args.micro_batch_size,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=args.seed,
        epoch=0,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=args.num_thread_reader,
        collate_fn=collate,
        pin_memory=runtime.device.type == "cuda",
        persistent_workers=args.num_thread_reader > 0,
    )

    def make_loader(epoch: int, start_batch: int) -> DataLoader:
        sampler.set_position(epoch, start_batch)
        return loader

    return make_loader, sampler.batches_per_epoch // args.gradient_accumulation_steps


def losses_loader(args: Arguments, dataset: Dataset, samples: int, runtime: Runtime) -> DataLoader:
    """The first `samples` of the training data in order, whole captions, the same number of batches on all ranks."""
    length = min(samples, len(dataset))  # type: ignore[arg-type]
    batch_size = min(args.batch_size, length // runtime.world_size)
    if not batch_size:
        raise ValueError(f"{length} samples are too few for {runtime.world_size} processes")
    sampler = GlobalBatchSampler(
        length, batch_size, rank=runtime.rank, world_size=runtime.world_size, seed=args.seed, epoch=0, shuffle=False
    )
    workers = args.num_thread_reader
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_whole_captions)


def evaluation_loader(args: Arguments, dataset: Dataset, runtime: Runtime) -> DataLoader:
    """This rank's part of the data, in order, no sample twice."""
    return DataLoader(
        dataset,
        sampler=EvaluationSampler(len(dataset), runtime.rank, runtime.world_size),  # type: ignore[arg-type]
        batch_size=args.batch_size_val,
        num_workers=args.num_thread_reader,
        collate_fn=collate,
        pin_memory=runtime.device.type == "cuda",
    )
