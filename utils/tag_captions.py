"""Tag the captions of a pre-training set before the first run (which would otherwise do it itself)."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index
from dataloaders.tagging import TAGGERS
from modules.config import VOCAB_SIZE
from utils.runtime.terminal import log_to_stderr, show, show_error


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data_path", type=Path, required=True, help='JSON list of {"video_id", "caption"}')
    parser.add_argument("--shards", type=Path, required=True, help="folder of path.index and the TFRecord shards")
    parser.add_argument(
        "--cache_dir", type=Path, help="where to put the tagged captions (default: the folder of the shards)"
    )
    parser.add_argument("--tagger", choices=tuple(TAGGERS), default="hanta", help="part-of-speech tagger")
    parser.add_argument("--workers", type=int, default=1, help="processes that tag")
    parser.add_argument("--vocab_size", type=int, default=VOCAB_SIZE, help="of the CLIP archive that will be trained")
    args = parser.parse_args(argv)
    log_to_stderr(logging.INFO)
    try:
        path = prepare_pretrain_index(
            args.data_path, args.shards, args.cache_dir, args.tagger, args.workers, args.vocab_size
        )
    except (OSError, ValueError, ImportError) as error:
        show_error(f"error: {error}")
        return 1
    index = PretrainIndex(path)
    show(f"{path}: {len(index)} samples, tagged by {index.tagger}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
