"""From flags to the data of pre-training: shards, tagged captions, object stores, validation clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from dataloaders.datasets.msrvtt import read_test_split
from dataloaders.datasets.webvid import WebVidPretrainDataset
from dataloaders.id_lists import read_frame_sizes
from dataloaders.object_store import ObjectStore
from dataloaders.pretrain_index import INDEX_FILE, PretrainIndex, prepare_pretrain_index
from modules.config import MATCHING_LOSSES, ModelConfig, setting
from utils.data.clips import Log, SplitClips, counts, open_clips, prepare_objects, sample_settings
from utils.data.loaders import Loader
from utils.evaluation.pretraining import collate_whole_captions
from utils.runtime.distributed import Runtime
from utils.runtime.sampler import GlobalBatchSampler
from utils.settings.arguments import Arguments


@dataclass
class PretrainArguments(Arguments):
    """Flags of pre-training alone."""

    eval_samples: int = setting(1000, "with --do_eval: training samples whose losses are computed", minimum=1)
    matching_loss: str | None = setting(
        None,
        "how trajectories and actions learn their words: by squared distance, as released, or contrastive; default: "
        "the checkpoint's own, contrastive for a new model of intended behaviour",
        choices=MATCHING_LOSSES,
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
    index = prepare_pretrain_index(
        args.data_path, index_dir, tagger=args.tagger, workers=workers, vocab_size=config.vocab_size
    )
    sizes = read_frame_sizes(args.frame_sizes) if args.frame_sizes else None
    objects = val_objects = None
    if config.need_object:
        objects = prepare_objects(args, config, args.object_path, log, sizes)
        if args.val_object_path:
            val_objects = prepare_objects(args, config, args.val_object_path, log)
    return PreparedData(index, index_dir, objects, val_objects, sizes)


def pretraining_dataset(args: Arguments, config: ModelConfig, data: PreparedData, log: Log) -> WebVidPretrainDataset:
    """The training samples of a prepared set."""
    assert data.index is not None and data.index_dir is not None
    index = PretrainIndex(data.index)
    log(f"captions: {data.index}: {counts(index.report)}, tagged by {index.tagger}")
    store = ObjectStore(data.objects) if data.objects else None
    settings = sample_settings(args, config, training=True)
    return WebVidPretrainDataset(index, data.index_dir, settings, store, data.frame_sizes)


def validation_clips(args: Arguments, config: ModelConfig, data: PreparedData, log: Log) -> SplitClips | None:
    """Test pairs of --val_csv with the clips in --val_features_path; None, with one line, when there are no clips.

    Raises:
        BadVideos: some clips are missing and --on_bad_video is error.
    """
    folder = args.val_features_path
    if folder is None or not Path(args.val_csv).is_file():
        log("validation is left out: it needs --val_csv and --val_features_path")
        return None
    split = read_test_split(args.val_csv)
    try:
        return open_clips(args, config, split, "validation", folder, data.val_objects, log, training=False)
    except FileNotFoundError as error:
        log(f"validation is left out: {error}")
        return None


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
    return Loader(dataset, workers, batch_sampler=sampler, collate_fn=collate_whole_captions)
