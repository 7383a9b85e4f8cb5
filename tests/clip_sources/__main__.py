"""Weights of other libraries' CLIP models, read by this project and compared with what those libraries compute.

    python -m tests.clip_sources                               # the whole table
    python -m tests.clip_sources --only "open_clip tiny"       # rows with these words
    python -m tests.clip_sources --open_clip ViT-L-14-336      # one model of open_clip's table
    python -m tests.clip_sources --hf FOLDER                   # a folder of transformers

Weights are drawn, nothing is fetched. The exit status is 1 when a difference is above the bound, when something is
taken that has to be refused, or the other way round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows of the table with all of these words")
    parser.add_argument(
        "--open_clip", action="append", default=[], metavar="NAME", help="instead of the table: a model"
    )
    parser.add_argument("--hf", action="append", default=[], type=Path, metavar="FOLDER", help="instead: a folder")
    args = parser.parse_args(argv)
    from tests.clip_sources.catalogue import all_sources, by_name, user_folder
    from tests.clip_sources.comparison import BOUND
    from tests.clip_sources.rows import HEAD, line, try_source

    try:
        chosen = [by_name(name) for name in args.open_clip] + [user_folder(folder) for folder in args.hf]
    except KeyError as error:
        parser.error(f"open_clip has no model {error}")
    if missing := [folder for folder in args.hf if not folder.is_dir()]:
        parser.error(f"no folder {missing[0]}")
    if not chosen:
        words = args.only.split()
        chosen = [source for source in all_sources() if all(word in source.title for word in words)]
    start, rows = time.monotonic(), []
    print(f"{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
    for source in chosen:
        rows.append(try_source(source))
        print(line(rows[-1]), flush=True)
    faults = [row for row in rows if row.fault]
    largest = max((row.difference.largest for row in rows if row.difference is not None), default=0.0)
    print(
        f"\n{len(rows)} sources in {time.monotonic() - start:.0f} s; largest difference {largest:.1e} of {BOUND:g}; "
        f"{sum(bool(row.message) for row in rows)} refused; {len(faults)} faults"
    )
    # TensorFlow and PyTorch in one process crash; version 4 of transformers may import it.
    assert not {"tensorflow", "tf_keras"} & set(sys.modules), "TensorFlow was imported beside PyTorch"
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
