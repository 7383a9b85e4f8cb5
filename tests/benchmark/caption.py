"""Measure captioning: the training step, and decoding per clip, greedy and with 5 beams, image time apart.

    bash scripts/benchmark.sh caption [--size vit-b16] [--batch 2] [--pairs 3] [--rounds 3]

The plain forms (tests/plain_forms.py) encode text and run the fusion encoder once per token, in training and in
decoding, as the released code does. Both have the same parameters and clips and take turns in one process. The model is
random and its end token is suppressed, so that every caption has the full length in both, as in the released decoding.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modules.batch import Batch
from modules.beam_search import Hypotheses, Scorer, SearchSettings, search
from modules.captioning import CaptionModel
from modules.decoder import CachedDecoder
from modules.fusion_encoder import VideoTokens
from tests.benchmark import memory
from tests.benchmark.pretrain import compare_losses, seconds_of
from tests.benchmark.report import add_output_flag, machine_facts, print_table, write_report
from tests.benchmark.steps import SIZES, backward, build, build_optimizer, describe, make_batches, update
from tests.plain_forms import PlainScorer

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
    """Captions of one batch of clips, by the cached decoder and by encoding everything again."""

    def __init__(self, model: CaptionModel, video: VideoTokens) -> None:
        self.model, self.video = model, video
        self.length = model.config.max_words

    def scorer(self, name: str, beams: int) -> Scorer:
        if name == "ours":
            return CachedDecoder(self.model, self.video, beams)
        return PlainScorer(self.model, self.video, beams, self.length)

    def run(self, name: str, beams: int) -> Hypotheses:
        settings = SearchSettings(beams, self.length - 1)
        start, end, frames = self.model.config.start_token, self.model.config.end_token, self.video.frames
        return search(self.scorer(name, beams), len(frames), start, end, settings, frames.device)

    def check(self, beams: int) -> None:
        """Raises RuntimeError where both do not give the same captions."""
        ours, plain = (self.run(name, beams) for name in ("ours", "plain"))
        if not torch.equal(ours.tokens, plain.tokens):
            raise RuntimeError(f"with {beams} beams ours and the plain loop give different captions")


@torch.no_grad()
def time_decoding(
    models: dict[str, Any], batches: dict[str, Batch], captions: int, rounds: int, device: str
) -> dict[str, Any]:
    """Seconds per clip of the image side and of the text side, ours and plain in turns.

    Args:
        captions: clips that are decoded together, those of the batch in turn: their content does not change the time.

    Raises:
        RuntimeError: they give different captions.
    """
    model = models["ours"].eval()
    model.vocabulary_head.bias[model.config.end_token] = -1e4
    clips = len(batches["ours"]["video"])
    video = model.encode_video(batches["ours"], features_need_grad=False)
    decoding = Decoding(model, video.select(torch.arange(captions, device=device) % clips))
    result: dict[str, Any] = {"image": {"ours": [], "plain": []}}
    for _ in range(rounds):
        for name, found in result["image"].items():
            found.append(seconds_of(partial(models[name].encode_video, batches[name]), device) / clips)
    for beams in BEAMS:
        decoding.check(beams)
        seconds = result[f"beam {beams}"] = {"ours": [], "plain": []}
        for _ in range(rounds):
            for name in seconds:
                action: Callable[[], Any] = partial(decoding.run, name, beams)
                seconds[name].append(seconds_of(action, device) / captions)
    return result


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """Plain over ours, turn by turn."""
    return [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmark.sh caption"
    )
    parser.add_argument("--size", choices=SIZES, default="vit-b16")
    parser.add_argument("--batch", type=int, default=2, help="clips (default 2)")
    parser.add_argument("--captions", type=int, default=8, help="clips that are decoded together (default 8)")
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
    decoding = time_decoding(models, batches, args.captions, args.rounds, args.device)
    report = {
        "machine": facts,
        "size": args.size,
        "workload": describe(ours.config, trimmed) | {"captions": args.captions},
        "goals": GOALS,
        "losses": losses,
        "peak_gb": peaks,
        "step_seconds": steps,
        "step_share": statistics.median(1 / ratio for ratio in ratios(steps)),
        "decoding_seconds_per_clip": decoding,
        "decoding_ratio": {name: statistics.median(ratios(seconds)) for name, seconds in decoding.items()},
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
    rows: list[tuple[Any, ...]] = [("", "ours", "plain", "plain / ours", "goal")]
    for name, seconds in report["decoding_seconds_per_clip"].items():
        medians = [statistics.median(seconds[who]) for who in ("ours", "plain")]
        goal = None if name == "image" else f">= {GOALS['decoding']:g}"
        rows.append((f"{name}, s per clip", *medians, report["decoding_ratio"][name], goal))
    print_table(
        "image side, and text side by beams: "
        f"{report['workload']['model']['max_words'] - 1} tokens, {report['workload']['captions']} clips at once",
        rows,
    )


if __name__ == "__main__":
    main()
