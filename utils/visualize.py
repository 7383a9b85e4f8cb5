"""Draw what a trained model sees in videos: boxes by trajectory with their nouns, and where each action query looks.

For each VIDEO, {output}/{stem}.png: the sampled frames as the model sees them with the boxes of the trajectories, the
noun that each trajectory is matched to, and per action query its attention over patches, objects and frames with the
verb that it is matched to. {stem}.mp4: the whole video with the boxes. {stem}.txt: the text of the matching.

python utils/visualize.py clip.mp4 --checkpoint output/pretrain/restore.bin --object_path objects --text "a dog runs"
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

import cv2
import numpy as np
from tqdm import tqdm

from dataloaders.datasets.msrvtt import read_test_pairs
from dataloaders.decoders import UnreadableVideo
from dataloaders.files import atomic_write_bytes, atomic_write_text
from modules.characters import printable
from utils.evaluation.bad_videos import BadVideos
from utils.inference.loading import add_released_flags
from utils.inference.predictor import Predictor
from utils.pictures.box_video import write_box_video
from utils.pictures.contact_sheet import contact_sheet
from utils.pictures.drawing import match_text
from utils.pictures.explain import Explanation, explain
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.terminal import show_error

USER_ERRORS = (CheckpointError, BadVideos, UnreadableVideo, OSError, ValueError, ImportError)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO", help="video files")
    add("--checkpoint", required=True, help="of a model with objects; pre-training is what trains the matching")
    add("--object_path", help="folder of object files {stem}.json; without it no boxes are seen")
    add("--labelmap_path", help="label map of the object files; default: the training run's")
    add_released_flags(parser)
    add("--text", help="what is matched; default: the caption that the checkpoint gives the video")
    add("--texts", type=Path, help="csv with the columns video_id and sentence: the text of each video, by its stem")
    add("--output", type=Path, default=Path("output/visualize"), help="folder to write; default: %(default)s")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--no_video", action="store_true", help="no .mp4")
    return parser.parse_args(argv)


def save(explanation: Explanation, output: Path, with_video: bool) -> list[str]:
    """Write the files of one video; returns what was written and what was matched, as lines."""
    stem = Path(explanation.video).stem
    sheet = contact_sheet(explanation)
    is_done, png = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
    assert is_done
    atomic_write_bytes(output / f"{stem}.png", png.tobytes())
    atomic_write_text(output / f"{stem}.txt", explanation.text + "\n")
    lines = [f"{explanation.video}: {explanation.text}"]
    lines += [f"  {entry.class_name}: {match_text(entry.match)}" for entry in explanation.trajectories]
    lines += [f"  action {number}: {match_text(entry.match)}" for number, entry in explanation.numbered_actions]
    lines.append(f"  {output / stem}.png, {sheet.shape[1]}x{sheet.shape[0]}")
    if with_video:
        frames = write_box_video(explanation, output / f"{stem}.mp4")
        lines.append(f"  {output / stem}.mp4, {frames} frames")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run the command; exit status 0, or 1 when something is missing or does not fit."""
    args = parse_arguments(argv)
    remarks: Counter[str] = Counter()

    def remark(line: str) -> None:
        remarks[line] += 1
        if remarks[line] == 1:
            show_error(line)

    try:
        _check_names(args.videos)
        texts = {pair.video_id: pair.caption for pair in read_test_pairs(args.texts, "--texts")} if args.texts else {}
        flags = {
            name: getattr(args, name)
            for name in ("object_path", "labelmap_path", "need_object", "use_action", "device")
        }
        predictor = Predictor(args.checkpoint, remark, **flags)
        for video in tqdm(args.videos, unit="video", disable=len(args.videos) == 1 or not sys.stderr.isatty()):
            explanation = explain(predictor, video, texts.get(video.stem, args.text))
            tqdm.write("\n".join(map(printable, save(explanation, args.output, not args.no_video))))
    except USER_ERRORS as error:
        show_error(f"error: {error}")
        return 1
    return 0


def _check_names(videos: list[Path]) -> None:
    """Raise if a video is not there, or two have the same stem, after which their output is named."""
    stems: dict[str, Path] = {}
    for video in videos:
        if not video.is_file():
            raise FileNotFoundError(f"{video}: no such video")
        if video.stem in stems:
            raise ValueError(f"{stems[video.stem]} and {video} would have the same output; give them one by one")
        stems[video.stem] = video


if __name__ == "__main__":
    sys.exit(main())
