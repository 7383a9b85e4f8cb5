"""Measure captioning: the training step, and decoding per clip, greedy and with 5 beams, image time apart.

    bash scripts/benchmark.sh caption [--size vit-b16] [--batch 2] [--pairs 3] [--rounds 3]

The plain forms (tests/plain_forms.py) encode text and run the fusion encoder once per token, in training and in
decoding, as the released code does. Both have the same parameters and clips and take turns in one process. The model is
random and its end token is suppressed, so that every caption has the full length in both, as in the released decoding.

Text is decoded as an evaluation with the default --batch_size_val does it: the plain loop batch by batch, ours several
batches together (utils/evaluation/captions.py). With few clips there is nothing to put together.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modules.batch import Batch
from modules.beam_search import Hypotheses, SearchSettings, search
from modules.fusion_encoder import VideoTokens
from modules.tasks.captioning import CaptionModel
from tests.benchmark import memory
from tests.benchmark.pretrain import compare_losses, seconds_of
from tests.benchmark.report import add_output_flag, machine_facts, print_table, write_report
from tests.benchmark.steps import SIZES, backward, build, build_optimizer, describe, make_batches, update
from tests.plain_forms import PlainScorer
from utils.evaluation.captions import clips_together
from utils.settings.groups import ReadSettings

GOALS = {"step": 0.45, "memory": 0.5, "decoding": 20.0}  # of the plain forms' time and memory; times as fast
BEAMS = (1, 5)


def time_steps(models: dict[str, Any], batches: dict[str, Batch], pairs: int, device: str) -> dict[str, list[float]]:
    """Seconds of whole training steps, ours and plain in turns."""
    optimizer = build_optimizer(models["ours"], 2 * pairs + 2)

    def step(name: str) -> None:
        backward(models[name], batches[name])
        update(models[name], optimizer)

    step("ours")  # the first step makes the optimizer's moments
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(pairs):
        for name in models:
            seconds[name].append(seconds_of(partial(step, name), device))
    return seconds


class Decoding:
    """Captions of clips, by the cached decoder and by encoding everything again.

    Args:
        videos: tokens of the batch's clips; the plain loop's have all trajectory slots, as the released code's have.
    """

    def __init__(self, model: CaptionModel, videos: dict[str, VideoTokens]) -> None:
        self.model, self.videos = model, videos
        self.length = model.config.max_words

    def run(self, name: str, beams: int, clips: int) -> Hypotheses:
        """Decode `clips` clips at once, those of the batch in turn: their content does not change the time."""
        frames = self.videos[name].frames
        video = self.videos[name].select(torch.arange(clips, device=frames.device) % len(frames))
        settings = SearchSettings(beams, self.length - 1)
        if name == "ours":
            return self.model.decode(video, settings)
        scorer = PlainScorer(self.model, video, beams, self.length)
        start, end = self.model.config.start_token, self.model.config.end_token
        return search(scorer, clips, start, end, settings, frames.device)

    def check(self, beams: int) -> None:
        """Raises RuntimeError where both do not give the same captions."""
        ours, plain = (self.run(name, beams, len(self.videos[name].frames)) for name in ("ours", "plain"))
        if not torch.equal(ours.tokens, plain.tokens):
            raise RuntimeError(f"with {beams} beams ours and the plain loop give different captions")


def clips_at_once(batch: int, few: Sequence[int], beams: int) -> list[dict[str, int]]:
    """What is compared: evaluation with `batch` clips per batch, where ours decodes several batches together, then
    `few` clips when there are no more.
    """
    together = batch * -(-clips_together(beams) // batch)
    return [{"ours": together, "plain": batch}, *({"ours": clips, "plain": clips} for clips in few)]


@torch.no_grad()
def time_decoding(
    models: dict[str, Any], batches: dict[str, Batch], batch: int, few: Sequence[int], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Seconds per clip of the text side, ours and plain in turns, by beams and clips at once (`clips_at_once`).

    Raises:
        RuntimeError: they give different captions.
    """
    model = models["ours"].eval()
    model.vocabulary_head.bias[model.config.end_token] = -1e4
    decoding = Decoding(
        model, {name: model.encode_video(batches[name], features_need_grad=False) for name in ("ours", "plain")}
    )
    results = []
    for beams in BEAMS:
        decoding.check(beams)
        for clips in clips_at_once(batch, few, beams):
            seconds: dict[str, list[float]] = {name: [] for name in clips}
            for _ in range(rounds):
                for name, count in clips.items():
                    action: Callable[[], Any] = partial(decoding.run, name, beams, count)
                    seconds[name].append(seconds_of(action, device) / count)
            results.append({"beams": beams, "clips": clips, "seconds": seconds, "ratio": median_ratio(seconds)})
    return results


@torch.no_grad()
def time_images(models: dict[str, Any], batches: dict[str, Batch], rounds: int, device: str) -> dict[str, Any]:
    """Seconds per clip of the image side, ours and plain in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, found in seconds.items():
            action: Callable[[], Any] = partial(models[name].encode_video, batches[name])
            found.append(seconds_of(action, device) / len(batches[name]["video"]))
    return {"seconds": seconds, "ratio": median_ratio(seconds)}


def median_ratio(seconds: dict[str, list[float]]) -> float:
    return statistics.median(ratios(seconds))


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """Plain over ours, turn by turn."""
    return [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmark.sh caption"
    )
    parser.add_argument("--size", choices=SIZES, default="vit-b16")
    parser.add_argument("--batch", type=int, default=2, help="clips (default 2)")
    usual = ReadSettings().batch_size_val
    parser.add_argument("--captions", type=int, default=usual, help=f"clips per evaluation batch (default {usual})")
    parser.add_argument("--few", type=int, nargs="*", default=[8], help="also captions of so few clips (default 8)")
    parser.add_argument("--frames", type=int, default=12, help="frames per clip (default 12)")
    parser.add_argument("--pairs", type=int, default=3, help="training steps of each kind (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of decoding (default 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-plain-memory", action="store_true", help="do not measure the plain forms' memory (14 GB)")
    add_output_flag(parser)
    args = parser.parse_args(argv)
    facts = machine_facts(args.device)
    variants = ("ours",) if args.no_plain_memory else ("ours", "plain")
    peaks = {
        name: memory.measure(name, args.size, args.batch, args.frames, args.device, "caption") for name in variants
    }
    ours, plain = build(args.size, args.frames, args.device, "caption")
    models = {"ours": ours, "plain": plain}
    trimmed, untrimmed = make_batches(ours.config, args.batch, args.device, task="caption")
    batches = {"ours": trimmed, "plain": untrimmed}
    losses = compare_losses(ours, plain, (trimmed, untrimmed))
    steps = time_steps(models, batches, args.pairs, args.device)
    images = time_images(models, batches, args.rounds, args.device)
    decoding = time_decoding(models, batches, args.captions, args.few, args.rounds, args.device)
    report = {
        "machine": facts,
        "size": args.size,
        "workload": describe(ours.config, trimmed),
        "goals": GOALS,
        "losses": losses,
        "peak_gb": peaks,
        "step_seconds": steps,
        "step_share": statistics.median(1 / ratio for ratio in ratios(steps)),
        "image_side": images,
        "decoding": decoding,
    }
    show(report)
    path = write_report(args.output, "caption", report)
    print(f"\n{path}")
    return path


def show(report: dict[str, Any]) -> None:
    """Print the report's tables."""
    steps, peaks = report["step_seconds"], report["peak_gb"]
    turns = " ".join(f"{1 / ratio:.2f}" for ratio in ratios(steps))
    print_table(
        f"captioning step, {report['size']}, {report['workload']['clips']} clips",
        [
            ("", "measured", "goal"),
            ("seconds per step, ours (median)", statistics.median(steps["ours"]), None),
            ("seconds per step, plain forms (median)", statistics.median(steps["plain"]), None),
            (f"ours / plain, median of {turns}", report["step_share"], f"<= {GOALS['step']}"),
            ("peak GB, ours", peaks["ours"], f"<= {GOALS['memory']} of plain"),
            ("peak GB, plain forms", peaks.get("plain"), None),
        ],
    )
    images = report["image_side"]
    rows: list[tuple[Any, ...]] = [("seconds per clip", "ours", "plain", "plain / ours", "goal")]
    rows.append(("image side", *medians(images["seconds"]), images["ratio"], None))
    for found in report["decoding"]:
        count = found["clips"]
        title = f"{found['beams']} beams, {count['ours']} clips at once against {count['plain']}"
        rows.append((title, *medians(found["seconds"]), found["ratio"], f">= {GOALS['decoding']:g}"))
    print_table(f"captions of {report['workload']['model']['max_words'] - 1} tokens: image side, and text side", rows)


def medians(seconds: dict[str, list[float]]) -> tuple[float, float]:
    return statistics.median(seconds["ours"]), statistics.median(seconds["plain"])


if __name__ == "__main__":
    main()
