"""Measure re-ranking from cached features: 1,000 texts x 1,000 clips, 32 candidates each way.

    bash scripts/benchmark.sh rerank [--sizes small vit-b16] [--items 1000] [--rounds 5]

The plain loop (tests/plain_forms.py) is the released one: one query at a time, 32 words and 2·O trajectories per pair
whether used or not, all rows of all layers. Both take turns on different queries of one run; then ours scores the whole
set both ways. The plain loop's time for that is its rate times the pairs, as it would take about 20 minutes.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.initialise import initialise
from modules.reranking import PairScorer, TextTokens, rerank_both
from modules.tasks.retrieval import RetrievalModel
from tests.benchmark.pretrain import seconds_of
from tests.benchmark.report import add_output_flag, machine_facts, peak_memory, print_table, write_report
from tests.benchmark.steps import README, SEED
from tests.benchmark.steps import SIZES as STEP_SIZES
from tests.plain_forms import match_probabilities

GOAL = 2.5
SIZES: dict[str, dict[str, Any]] = {
    "vit-b16": STEP_SIZES["vit-b16"],
    "small": {"embed_dim": 256, "vision_width": 256, "text_width": 256, "vocab_size": 2000},
    "tiny": {**STEP_SIZES["tiny"], "max_frames": 3},
}
TOLERANCE = 1e-4  # of probabilities, in fp32


class Cache:
    """Random features of clips and texts that belong together in pairs, as an evaluation holds them.

    Text lengths follow those of MSR-VTT's captions (9.3 words on average, from 4 tokens up); clips use 10 to 2·O
    trajectories (`full`: every word and trajectory slot is used, so that there is no padding to save).
    """

    def __init__(self, size: str, items: int, device: str, *, full: bool) -> None:
        torch.manual_seed(SEED)
        config = ModelConfig(**{**README, **SIZES[size]})
        self.model = RetrievalModel(config, Behaviour.preset("intended"))
        initialise(self.model)
        self.model.to(device).eval()
        self.device = torch.device(device)
        draw = np.random.default_rng(SEED)
        lengths = np.clip(np.rint(draw.gamma(7.0, 9.3 / 7.0, items)) + 3, 4, config.max_words)
        counts = draw.integers(min(10, config.num_trajectories), config.num_trajectories + 1, (items, 1))
        if full:
            lengths[:], counts[:] = config.max_words, config.num_trajectories
        self.lengths = torch.from_numpy(lengths.astype(np.int64))
        width = config.embed_dim
        shared = torch.randn(items, width)
        self.text_feature = shared + 2 * torch.randn(items, width)
        self.tokens = torch.randn(items, config.max_words, width, device=device)
        self.videos = VideoTokens(
            shared[:, None] + 2 * torch.randn(items, 1, width) + torch.randn(items, config.max_frames, width),
            torch.ones(items, config.max_frames, dtype=torch.bool),
            torch.randn(items, config.num_trajectories, width),
            torch.arange(config.num_trajectories) < torch.from_numpy(counts),
            torch.randn(items, config.num_actions, width),
        ).apply(lambda part: part.to(device))
        with torch.no_grad():
            similarity = self.model.similarity_matrix(
                self.text_feature.to(device), self.videos.frames, self.videos.frame_mask
            )
        self.similarity = similarity.cpu()

    def texts(self, index: Tensor) -> TextTokens:
        lengths = self.lengths[index]
        return TextTokens(self.tokens[index.to(self.device), : int(lengths.max())], lengths)

    def scorer(self) -> PairScorer:
        return PairScorer(
            self.model.fusion, self.model.matching_head, self.videos, self.texts, self.lengths, self.device
        )

    def plain(self, text_index: Tensor, video_index: Tensor) -> Tensor:
        index = text_index.to(self.device), video_index.to(self.device)
        return match_probabilities(self.model, self.videos, self.tokens, self.lengths.to(self.device), *index).cpu()


def compare_rates(cache: Cache, top: int, rounds: int, queries: int, plain_queries: int) -> dict[str, Any]:
    """Pairs per second of both on queries of their own, in turns.

    Raises:
        RuntimeError: they differ on the same pairs.
    """
    candidates = cache.similarity.topk(min(top, len(cache.similarity))).indices
    own = torch.arange(len(candidates))[:, None].expand_as(candidates)
    scorer = cache.scorer()
    difference = scorer.probabilities(own[:2], candidates[:2]) - cache.plain(own[:2], candidates[:2])
    if float(difference.abs().max()) > TOLERANCE:
        raise RuntimeError(f"ours and the plain loop differ by {float(difference.abs().max()):.2e}")
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(rounds):
        for name, action, count in (
            ("ours", scorer.probabilities, queries),
            ("plain", cache.plain, plain_queries),
        ):
            chosen = (torch.arange(count) + turn * count) % len(candidates)
            pairs = own[chosen], candidates[chosen]
            seconds = seconds_of(lambda f=action, p=pairs: f(*p), cache.device.type)  # type: ignore[misc]
            rates[name].append(pairs[0].numel() / seconds)
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    return {"pairs_per_second": rates, "ratios": ratios, "median_ratio": statistics.median(ratios)}


def whole_evaluation(cache: Cache, top: int) -> dict[str, Any]:
    """Both directions of the whole set: seconds, pairs asked for and computed, peak memory of this process."""
    scorer, computed = cache.scorer(), 0

    def counted(text_index: Tensor, video_index: Tensor) -> Tensor:
        nonlocal computed
        computed += text_index.numel()
        return scorer.probabilities(text_index, video_index)

    seconds = seconds_of(lambda: rerank_both(cache.similarity, top, counted, True), cache.device.type)
    asked = 2 * len(cache.similarity) * min(top, len(cache.similarity))
    return {"seconds": seconds, "pairs_asked": asked, "pairs_computed": computed, "peak_gb": peak_memory()}


def measure(size: str, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one width."""
    result: dict[str, Any] = {}
    for name, full in (("typical", False), ("without padding", True)):
        cache = Cache(size, args.items, args.device, full=full)
        result[name] = compare_rates(cache, args.top, args.rounds, args.queries, args.plain_queries)
        if not full:
            whole = whole_evaluation(cache, args.top)
            plain = whole["pairs_asked"] / statistics.median(result[name]["pairs_per_second"]["plain"])
            result["whole"] = {**whole, "plain_seconds_extrapolated": plain, "ratio": plain / whole["seconds"]}
    return result


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "vit-b16"])
    parser.add_argument("--items", type=int, default=1000, help="texts, and clips")
    parser.add_argument("--top", type=int, default=32, help="candidates of a query")
    parser.add_argument("--rounds", type=int, default=5, help="turns of ours and the plain loop")
    parser.add_argument("--queries", type=int, default=64, help="queries of a turn of ours")
    parser.add_argument("--plain-queries", type=int, default=8, help="queries of a turn of the plain loop")
    parser.add_argument("--device", default="cpu")
    add_output_flag(parser)
    args = parser.parse_args(argv)
    report: dict[str, Any] = {"machine": machine_facts(args.device), "goal": GOAL, "items": args.items, "sizes": {}}
    for size in args.sizes:
        report["sizes"][size] = measure(size, args)
    rows: list[list[Any]] = [["", *args.sizes]]
    found = report["sizes"].values()
    for name in ("typical", "without padding"):
        for who in ("ours", "plain"):
            rates = [statistics.median(f[name]["pairs_per_second"][who]) for f in found]
            rows.append([f"{name}: pairs/s, {who}", *rates])
        rows.append([f"{name}: ours / plain", *(f[name]["median_ratio"] for f in found)])
        rows.append([f"{name}: each turn", *(" ".join(f"{r:.2f}" for r in f[name]["ratios"]) for f in found)])
    for key in ("seconds", "pairs_asked", "pairs_computed", "plain_seconds_extrapolated", "ratio", "peak_gb"):
        rows.append([f"whole set: {key.replace('_', ' ')}", *(f["whole"][key] for f in found)])
    print_table(f"Re-ranking {args.items} x {args.items}, {args.top} candidates each way (goal: {GOAL} times)", rows)
    path = write_report(args.output, "rerank", report)
    print(f"\n{path}")
    return path


if __name__ == "__main__":
    main()
