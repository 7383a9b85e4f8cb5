"""Start like a pre-training run whose data are prepared, up to the first batch; prints one line of JSON.

Run by the data benchmark in a fresh process: all imports of tasks/pre_training.py, finding the caches, opening index,
shards and object store, the sampler's permutation and the workers' start are part of the time. The model is not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from tests.benchmark.report import memory_of, peak_memory

TORCH_ALONE = peak_memory()

from modules.config import ModelConfig
from tasks.pre_training import PretrainArguments
from utils.data.clips import train_loader
from utils.data.pretraining import PreparedData, prepare_pretraining, pretraining_dataset
from utils.runtime.distributed import find_runtime
from utils.settings.parser import parse_arguments


def arguments(folder: Path, batch_size: int, workers: int) -> PretrainArguments:
    """The README command's data flags on the simulated set."""
    command = f"""--do_train --num_thread_reader {workers} --batch_size {batch_size} --device cpu
        --labelmap_path {folder}/label_map.json --train_csv {folder}/shards
        --data_path {folder}/shards/frozen_train_labels.json --output_dir {folder}/run
        --max_words 32 --max_frames 12 --feature_framerate 1 --slice_framepos 2 --loose_type
        --need_object --object_path {folder}/objects --object_count 10 --object_layer 12 --object_fuse fusion
        --use_action"""
    return parse_arguments(command.split(), PretrainArguments)


def prepare(args: PretrainArguments) -> tuple[ModelConfig, PreparedData]:
    config = ModelConfig(**args.model.given())
    return config, prepare_pretraining(args, config, lambda text: None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--started", type=float, required=True, help="time.time() when this process was started")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args(argv)
    seconds = {"imports": time.time() - options.started}
    args = arguments(options.folder, options.batch, options.workers)
    config, data = prepare(args)
    dataset = pretraining_dataset(args, config, data, lambda text: None)
    seconds["prepared data found"] = time.time() - options.started
    make_loader, _ = train_loader(args, dataset, find_runtime(None, "cpu"))
    batches = iter(make_loader(0, 0))
    batch = next(batches)
    seconds["first batch"] = time.time() - options.started
    workers = [worker.pid for worker in getattr(batches.batches, "_workers", [])]
    content = {
        "seconds_since_start": seconds,
        "peak_gb": peak_memory(),
        "torch_alone_gb": TORCH_ALONE,
        "workers_private_gb": [memory_of(pid, "Private_Clean", "Private_Dirty") for pid in workers],
        "rank_and_workers_gb": sum(memory_of(pid, "Pss") for pid in ["self", *workers]),
        "samples": len(dataset),
        "clips": len(batch["video_id"]),
        "boxes": len(batch["box_index"]),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(content))


if __name__ == "__main__":
    main()
