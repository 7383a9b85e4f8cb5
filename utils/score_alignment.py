"""Do words find their things? Which nouns the trajectories of a pre-trained model are matched to, and which verbs.

FOLDER holds videos/ (or videos anywhere below it), objects/ with their object files, and captions: the first of
test.csv, MSRVTT_data.json, raw-captions.pkl and captions.{jsonl,json,csv,tsv,pkl} in it, or the file of --captions.
All captions of a clip count. With the truth.json of a demo world (utils/make_demo_data.py) the trajectories and action
queries are also compared with all words of that world.

Every figure has a 95 % interval (bootstrap over clips), what chance gives, and the number that it is a share of. Chance
is a random one-to-one assignment of as many trajectories and words; a noun drawn evenly of all; as many motions as are
named, drawn evenly.

python utils/score_alignment.py output/quickstart/pretrain/restore.bin --data output/quickstart/demo/msrvtt
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from utils.demo.scoring import true_words
from utils.demo.wording import single_captions
from utils.evaluation.alignment import alignment_lines
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.open_alignment import Sentence, TrueWords
from utils.inference.alignment import Clips, World, find_clips, score_alignment
from utils.inference.loading import add_released_flags
from utils.inference.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.terminal import show_error, show_lines

USER_ERRORS = (CheckpointError, BadVideos, OSError, ValueError, ImportError)
TRUTH = "truth.json"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="of a model with objects; pre-training is what trains the matching")
    add("--data", type=Path, required=True, metavar="FOLDER", help="videos, objects and captions; truth.json if any")
    add("--captions", type=Path, metavar="FILE", help="any caption file of the data sets; default: see above")
    add("--clips", type=int, metavar="N", help="the first N clips of the caption file; default: all")
    add("--labelmap_path", help="label map of the object files; default: the training run's")
    add("--tagger", help="which words are nouns; default: the training run's")
    add_released_flags(parser)
    add("--output", type=Path, metavar="FILE.json", help="write the figures there too")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("fp32", "auto", "bf16", "fp16"), default="fp32", help="default: %(default)s")
    add("--batch_size_val", type=int, default=50, help="clips encoded at once; default: %(default)s")
    add("--on_bad_video", choices=("error", "skip"), default="error", help="videos that cannot be read")
    args = parser.parse_args(argv)
    if args.clips is not None and args.clips < 1:
        parser.error("--clips must be at least 1")
    return args


def read_world(folder: Path) -> World | None:
    """What is true of a demo world's clips; None without its truth.json."""
    path = folder / TRUTH
    if not path.is_file():
        show_error(f"{folder} has no {TRUTH}: what is nearest among all words of a world is left out")
        return None
    sentences = [Sentence(text, thing.shape, thing.motion) for thing, text in single_captions()]
    return World({video: TrueWords(*words) for video, words in true_words(path).items()}, sentences)


def remarks(args: argparse.Namespace, clips: Clips) -> None:
    """Say what is not as asked for."""
    if clips.missing:
        show_error(f"{clips.missing} videos of {clips.caption_file} are not in {args.data}; they are left out")
    if args.clips and len(clips.captions) < args.clips:
        show_error(f"{len(clips.captions)} clips are all that there are, not {args.clips} (--clips)")


def main(argv: list[str] | None = None) -> int:
    """Run the command; exit status 0, or 1 when something is missing or does not fit."""
    args = parse_arguments(argv)
    said: Counter[str] = Counter()

    def remark(line: str) -> None:
        said[line] += 1
        if said[line] == 1:
            show_error(line)

    try:
        clips = find_clips(args.data, args.captions, args.clips)
        remarks(args, clips)
        names = ("labelmap_path", "tagger", "need_object", "use_action", "device", "precision")
        flags = {name: getattr(args, name) for name in (*names, "batch_size_val", "on_bad_video")}
        flags |= {"object_path": str(args.data / "objects")}
        predictor = Predictor(args.checkpoint, remark, progress=sys.stderr.isatty(), **flags)
        scored = score_alignment(predictor, clips, read_world(args.data))
        if args.output:
            files = {"checkpoint": args.checkpoint, "data": str(args.data), "captions": str(clips.caption_file)}
            atomic_write_text(args.output, json.dumps({**files, **scored.content()}, indent=1) + "\n")
    except USER_ERRORS as error:
        show_error(f"error: {error}")
        return 1
    title = f"{args.checkpoint}: {scored.clips} clips of {args.data}, {scored.texts} captions of {clips.caption_file}"
    show_lines([title, "", *alignment_lines(scored.by_words())])
    return 0


if __name__ == "__main__":
    sys.exit(main())
