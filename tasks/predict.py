"""Use a trained model on videos: `python tasks/predict.py {caption,answer,match,search,embed} ... --checkpoint FILE`.

python tasks/predict.py caption VIDEO... --checkpoint output/caption_msrvtt/best.bin
python tasks/predict.py answer VIDEO --question "what is the dog doing" --checkpoint output/qa_msrvtt/best.bin
python tasks/predict.py match VIDEO... --text "a dog runs" --text "a cat sleeps" --checkpoint ...
python tasks/predict.py search FOLDER --query "a dog runs" --checkpoint output/retrieval_msrvtt/best.bin
python tasks/predict.py caption VIDEO --checkpoint ... --detector hf --weights hf-hub:OWNER/NAME
python tasks/predict.py embed FOLDER --texts captions.txt --output features.npz --checkpoint ViT-B-16.pt
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.decoders import BACKENDS, UnreadableVideo
from dataloaders.frame_cache import FrameCacheSettings
from dataloaders.video_files import list_videos
from modules.beam_search import SearchSettings
from modules.config import ACTIVATIONS
from modules.tasks.captioning import CaptionModel
from utils.data.loaders import StalledWorker
from utils.evaluation.bad_videos import BadVideos
from utils.inference.embedding import read_texts, require_place
from utils.inference.loading import add_released_flags
from utils.inference.predictor import CHOSEN, NO_REPEAT, Predictor
from utils.inference.search_index import SearchIndex
from utils.preparation.choosing import DetectorSettings
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.terminal import show_error, show_json, show_lines
from utils.settings.fields import add_flags, flags_of

USER_ERRORS = (CheckpointError, BadVideos, UnreadableVideo, StalledWorker, FileNotFoundError, ValueError)


class Output:
    """Results on stdout, as text or one JSON document; remarks on stderr. `left_out` counts unreadable videos."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.left_out = as_json, 0

    def remark(self, line: str) -> None:
        """Print a line about what was loaded."""
        show_error(line)

    def skipped(self, reasons: Sequence[str]) -> None:
        """Name the videos that could not be read."""
        self.left_out += len(reasons)
        for reason in reasons:
            self.remark(f"left out: {reason}")

    def result(self, lines: list[str], document: Any) -> None:
        """Show a result."""
        if self.as_json:
            show_json(json.dumps(document, indent=1, ensure_ascii=False))
        else:
            show_lines(lines)


def caption(args: argparse.Namespace, predictor: Predictor, output: Output) -> None:
    """A sentence for each video."""
    search = SearchSettings(
        args.beam_size, predictor.model(CaptionModel).config.max_words - 1, args.length_penalty, args.no_repeat_ngram
    )
    captions = predictor.caption(list_videos(args.videos), search)
    output.skipped(captions.skipped)
    document = [{"video": video, "caption": text} for video, text in captions.items()]
    output.result([f"{video}: {text}" for video, text in captions.items()], document)


def answer(args: argparse.Namespace, predictor: Predictor, output: Output) -> None:
    """The best answers of each question, with their probabilities."""
    answers = predictor.answer(args.video, args.question, args.top)
    lines = []
    for item in answers:
        lines += [f"{item.question}", f"  {item.answer}  {item.probability:.2f}"]
        lines += [f"    or {text}  {probability:.2f}" for text, probability in item.others]
    output.result(lines, [item._asdict() for item in answers])


def match(args: argparse.Namespace, predictor: Predictor, output: Output) -> None:
    """How well each text fits each video."""
    matches = predictor.match(list_videos(args.videos), args.text)
    output.skipped(matches.skipped)
    lines = []
    for item in matches:
        head = f"{item.video}: " if len(args.videos) > 1 or Path(args.videos[0]).is_dir() else ""
        probability = "" if item.probability is None else f"  P(match) {item.probability:.3f}"
        lines.append(f"{head}{item.text}  similarity {item.similarity:.3f}{probability}")
    output.result(lines, [item._asdict() for item in matches])


def search(args: argparse.Namespace, predictor: Predictor, output: Output) -> None:
    """The best videos of a folder for each query; without --query, queries are read from the standard input."""
    begin = time.monotonic()
    index = SearchIndex(predictor, args.folder, args.index)
    update = index.last_update
    output.skipped(update.unreadable)
    output.remark(
        f"{index.path}: {len(index.names)} videos, {update.encoded} encoded, {update.kept} unchanged, {update.removed} "
        f"gone, {len(update.unreadable)} unreadable, {time.monotonic() - begin:.1f} s"
    )
    index.search(["a video"], 1, args.rerank_top)  # the first text loads the vocabulary
    queries = args.query or (line.strip() for line in sys.stdin if line.strip())
    for query in queries:
        begin = time.monotonic()
        [found] = index.search([query], args.top, args.rerank_top)
        milliseconds = 1000 * (time.monotonic() - begin)
        lines = [f"{query}  ({milliseconds:.0f} ms)"]
        for rank, item in enumerate(found, 1):
            probability = "" if item.probability is None else f"  P(match) {item.probability:.3f}"
            lines.append(f"  {rank}. {item.video}  {item.similarity:.3f}{probability}")
        output.result(lines, {"query": query, "milliseconds": milliseconds, "found": [f._asdict() for f in found]})


def embed(args: argparse.Namespace, predictor: Predictor, output: Output) -> None:
    """Features of videos and texts, as arrays in a file."""
    require_place(args.output)
    texts, blank = (args.text or [], 0) if args.texts is None else read_texts(args.texts)
    if blank:
        output.remark(f"{args.texts}: {blank} blank lines are left out")
    features = predictor.embed(list_videos(args.videos), texts)
    output.skipped(features.skipped)
    features.save(args.output)
    videos, frames, width = features.frame_features.shape
    line = f"{args.output}: {videos} videos of {frames} frames, {len(texts)} texts, features of {width} numbers"
    document = {"file": args.output, "videos": videos, "frames": frames, "texts": len(texts), "width": width}
    output.result([line], {**document, "logit_scale": float(features.logit_scale), "left_out": len(features.skipped)})


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments; `run` is the function of the chosen subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="{caption,answer,match,search,embed}")
    common = _common_flags()

    def command(name: str, run: Callable[..., None]) -> argparse.ArgumentParser:
        own = commands.add_parser(name, parents=[common], help=run.__doc__, description=run.__doc__)
        own.set_defaults(run=run)
        return own

    own = command("caption", caption)
    own.add_argument("videos", nargs="+", metavar="VIDEO", help="files, or folders of videos")
    own.add_argument("--beam_size", type=int, default=5, help="captions that are followed at once; 1 is greedy")
    own.add_argument("--length_penalty", type=float, default=1.0, help="as in the captioning task")
    own.add_argument("--no_repeat_ngram", type=int, default=NO_REPEAT, help="as in the captioning task")
    own = command("answer", answer)
    own.add_argument("video", metavar="VIDEO")
    own.add_argument("--question", action="append", required=True, help="may be given several times")
    own.add_argument("--top", type=int, default=3, help="answers shown")
    own = command("match", match)
    own.add_argument("videos", nargs="+", metavar="VIDEO", help="files, or folders of videos")
    own.add_argument("--text", action="append", required=True, help="may be given several times")
    own = command("search", search)
    own.add_argument("folder", metavar="FOLDER")
    own.add_argument(
        "--query", action="append", help="may be given several times; without it they are read line by line"
    )
    own.add_argument("--top", type=int, default=5, help="videos shown")
    own.add_argument("--rerank_top", type=int, default=0, help="candidates for the matching head; 0: none")
    own.add_argument("--index", help="file of the index; default: FOLDER/.stoa-search.npz")
    own = command("embed", embed)
    own.add_argument("videos", nargs="+", metavar="VIDEO_OR_FOLDER", help="files, or folders of videos")
    texts = own.add_mutually_exclusive_group()
    texts.add_argument("--text", action="append", help="may be given several times")
    texts.add_argument("--texts", metavar="FILE", help="file with one text a line")
    own.add_argument("--output", required=True, metavar="FILE.npz", help="file to write")
    return parser.parse_args(argv)


def _common_flags() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--checkpoint", required=True, help="own (its run's config.json is read too), released, or CLIP"
    )
    common.add_argument(
        "--object_path",
        help="folder of object files {stem}.json; without it, or --detector, no objects are seen. With --detector: "
        "what is found is kept there, and read the next time",
    )
    common.add_argument("--labelmap_path", help="label map of the object files; default: the training run's")
    common.add_argument("--clip_archive", help="CLIP weights for what the checkpoint lacks")
    common.add_argument("--clip_model", help="name in open_clip's table of CLIP weights without a configuration")
    common.add_argument("--activation", choices=ACTIVATIONS, help="of CLIP weights without a configuration")
    common.add_argument("--image_resolution", type=int, help="side of the picture in pixels; default: the weights' own")
    add_released_flags(common)
    for name, what in zip(CHOSEN, ("frames per clip", "tokens of a text, start and end token included"), strict=True):
        common.add_argument(f"--{name}", type=int, help=f"{what}, for CLIP weights; a trained model keeps its own")
    common.add_argument("--feature_framerate", type=float, help="candidate frames per second; default: as in training")
    common.add_argument(
        "--video_backend", choices=BACKENDS, help="decoder of videos; default: OpenCV, PyAV where it fails"
    )
    for kind in (DetectorSettings, FrameCacheSettings):
        add_flags(common, kind, show_default=True)
    common.add_argument("--num_thread_reader", type=int, default=0, help="processes that read videos")
    common.add_argument("--batch_size_val", type=int, default=8, help="videos at once")
    common.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    common.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="arithmetic; auto: bf16 on CUDA and on CPUs with bf16 matrix instructions, fp32 elsewhere",
    )
    common.add_argument("--verbose", action="store_true", help="say which parameters came from where")
    common.add_argument("--json", action="store_true", help="results as JSON")
    return common


def main(argv: list[str] | None = None) -> int:
    """Run the command; status 0, 1 if input is missing or unfit or the output closed, 3 if a video is unreadable."""
    args = parse_arguments(argv)
    output = Output(args.json)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that are not UTF-8; these are JSON's own escapes
    names = (
        "object_path", "labelmap_path", "clip_archive", "clip_model", "activation", "image_resolution", "need_object",
        "use_action", "feature_framerate", "video_backend", "num_thread_reader", "batch_size_val", "device",
        "precision", *CHOSEN,
        *(flag.name for kind in (DetectorSettings, FrameCacheSettings) for flag in flags_of(kind)),
    )  # fmt: skip
    try:
        flags = {name: getattr(args, name) for name in names}
        load_log = output.remark if args.verbose else lambda line: None
        is_watched = sys.stderr.isatty()
        predictor = Predictor(args.checkpoint, output.remark, load_log, is_watched, on_bad_video="skip", **flags)
        args.run(args, predictor, output)
    except USER_ERRORS as error:
        show_error(f"error: {error}")
        return 1
    except BrokenPipeError:  # the reader of the results, `head` perhaps, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is there a reader for the flush at exit
        return 1
    return 3 if output.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
