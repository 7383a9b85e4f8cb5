"""Read a data set's annotations, videos and object files before a long run, and list what is wrong with them.

    python utils/check_data.py --datatype webvid --train_csv results_2M_train.csv --features_path VIDEOS
    python utils/check_data.py --datatype pretrain --train_csv SHARDS --data_path SHARDS/frozen_train_labels.json
                               --need_object --object_path OBJECTS --labelmap_path LABEL_MAP.json
    python utils/check_data.py --datatype csv --data_csv my.csv --features_path VIDEOS
    python utils/check_data.py --datatype msvd_caption --data_path ANNOTATIONS --features_path VIDEOS --workers 8
                               --object_path OBJECTS --labelmap_path LABEL_MAP.json

It takes the flags of the tasks: a task's command line runs with this file in the place of the task, and flags that say
nothing about data have no effect. Data type webvid is csv and clips, from which utils/webvid_to_tfrecord.py writes
shards; data type pretrain is those shards, found as pre-training finds them, with their index and captions (not its
validation clips: these are data type msrvtt_retrieval). Of a table of one's own (csv) all is read that any task would
read: captions, questions, options. Annotations are read by the task's own readers, every video is decoded to its end
and every record's picked frames are decoded as training does, and every object file is compared with its clip and with
the frame rule. Nothing but the report is written.

Findings are of three severities:
    stop   training cannot start, or would end on the way: annotations, label map or folders are missing or damaged, a
           split has no readable video, a shard is not there, too many samples in a row are damaged, or the sizes that
           boxes are mapped by are unknown.
    error  a clip is lost, or used without all that its files hold. Training leaves it out; evaluation refuses missing
           or unreadable videos unless --on_bad_video is skip.
    note   worth knowing, but nothing is lost: short or repeated, or files that no list names.
A file that cannot be opened, or of which clearly fewer frames decode than it states, counts as truncated only if its
size or its end shows that a part is missing. Kinds and their severities are in utils/checks/findings.py.

Exit status: 0 nothing but notes; 1 errors, training can start; 2 training cannot start or would end on the way (or
the flags are wrong).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.preparation.video_workers import CannotStart
from utils.runtime.terminal import show_error, show_lines


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    # Not above: worker processes import this file, and stay small and quick to start without PyTorch.
    from utils.checks.run import run

    try:
        lines, status = run(argv, __doc__)
    except (OSError, CannotStart) as error:
        show_error(f"error: {error}")
        return 2
    show_lines(lines)
    return status


if __name__ == "__main__":
    sys.exit(main())
