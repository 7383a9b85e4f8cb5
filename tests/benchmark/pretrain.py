"""Measure the pre-training step: time against the plain forms, memory, FLOPs, and where the time goes.

    bash scripts/benchmark.sh pretrain [--size vit-b16] [--batch 2] [--frames 12] [--pairs 5]

The plain forms (tests/plain_forms.py) are the released formulas on the same parameters and the same clips, with the
padding that the released loader gives; both take turns in one process. They have no dropout, so both run without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from modules.batch import Batch
from modules.tasks.pretrain import PretrainModel
from tests.benchmark import memory
from tests.benchmark.minimum import pretraining_minimum
from tests.benchmark.report import add_output_flag, machine_facts, print_table, write_report
from tests.benchmark.steps import SIZES, backward, build, build_optimizer, describe, make_batches, update
from tests.plain_forms import PlainPretrainModel
from utils.training.optimizer import BertAdam

GOALS = {"ratio": 0.55, "ours": 7.0, "ours_checkpointed": 5.0}  # of the plain forms' time; GB; GB
TOLERANCE = 1e-3  # relative difference of two losses in fp32
GROUPS = {
    "linear": ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "convolution", "conv2d", "gemm"),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention"),
    "other": (
        "roi_align", "index", "gather", "scatter", "copy", "cat", "clone", "embedding", "select", "slice", "empty",
        "zeros", "view", "reshape", "transpose", "contiguous", "expand", "as_strided", "evaluate_function", "unbind",
        "nonzero", "resize", "item", "sort", "cumsum", "searchsorted", "stack", "chunk", "split", "pad", "detach",
        "squeeze",
    ),
}  # fmt: skip


def compare_losses(ours: PretrainModel, plain: PlainPretrainModel, batches: tuple[Batch, Batch]) -> dict[str, Any]:
    """Losses of both on the same clips.

    Raises:
        RuntimeError: they differ, so that their times would not be comparable.
    """
    with torch.no_grad():
        left, right = ours(batches[0]), plain(batches[1])
    losses = {name: {"ours": float(left[name]), "plain": float(right[name])} for name in ours.available_losses}
    differing = {
        name: pair
        for name, pair in losses.items()
        if abs(pair["ours"] - pair["plain"]) > TOLERANCE * max(1.0, abs(pair["plain"]))
    }
    if differing:
        raise RuntimeError(f"ours and the plain forms differ in {differing}")
    return losses


def seconds_of(action: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_rate(shapes: list[tuple[int, int, int]], device: str, repeats: int = 3) -> float:
    """fp32 matrix products of this machine, FLOP/s: the best shape's median."""
    rates = []
    for m, k, n in shapes:
        a, b, out = (torch.randn(*size, device=device) for size in ((m, k), (k, n), (m, n)))
        times = [seconds_of(partial(torch.mm, a, b, out=out), device) for _ in range(repeats)]
        rates.append(2 * m * k * n / statistics.median(times))
    return max(rates)


def time_steps(
    models: dict[str, PretrainModel],
    batches: dict[str, Batch],
    optimizer: BertAdam,
    pairs: int,
    shapes: list[tuple[int, int, int]],
    device: str,
) -> dict[str, list[float]]:
    """Seconds of whole steps, ours and plain in turns, and the machine's matrix rate beside each pair."""

    def step(name: str) -> Callable[[], None]:
        def run() -> None:
            backward(models[name], batches[name])
            update(models[name], optimizer)

        return run

    step("ours")()  # the first step makes the optimizer's moments
    measured: dict[str, list[float]] = {"ours": [], "plain": [], "matrix_rate": []}
    for _ in range(pairs):
        for name in ("ours", "plain"):
            measured[name].append(seconds_of(step(name), device))
        measured["matrix_rate"].append(matrix_rate(shapes, device))
    return measured


def count_flops(model: PretrainModel, batch: Batch) -> dict[str, float]:
    """FLOPs of a forward and backward pass by operator, as torch counts them.

    torch has no formula for the CPU's fused attention; the one of its CUDA counterpart is registered for it. Its
    backward pass computes the scores again, so it is counted as five products, not four.
    """
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        backward(model, batch)
    model.zero_grad(set_to_none=True)
    return {str(name).removeprefix("aten."): float(n) for name, n in counter.get_flop_counts()["Global"].items()}


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **choices: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **choices: Any
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def time_shares(model: PretrainModel, batch: Batch, optimizer: BertAdam, device: str) -> dict[str, float]:
    """Percent of one step's operator time (self time) by kind of operator."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    totals: Counter[str] = Counter()
    parts: tuple[tuple[str | None, Callable[[], Any]], ...] = (
        (None, lambda: backward(model, batch)),
        ("optimiser", lambda: update(model, optimizer)),
    )
    for group, action in parts:
        with profile(activities=activities) as profiler:
            action()
        for event in profiler.key_averages():
            spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
            totals[group or operator_group(event.key)] += spent
    whole = sum(totals.values())
    return {name: 100 * totals[name] / whole for name in ("linear", "attention", "elementwise", "other", "optimiser")}


def operator_group(name: str) -> str:
    """linear, attention, other (moving data, views, RoIAlign, autograd itself), or elementwise: whatever remains."""
    if "::" not in name or name == "aten::t":  # autograd's own bookkeeping; a view
        return "other"
    lowered = name.lower()
    if any(part in lowered for part in GROUPS["attention"]):
        return "attention"
    bare = lowered.split("::")[-1].removeprefix("_")
    if bare.startswith("mkldnn_") or any(part in bare for part in ("convolution", "gemm")) or bare in GROUPS["linear"]:
        return "linear"
    return "other" if any(part in lowered for part in GROUPS["other"]) else "elementwise"


def measure_memory(args: argparse.Namespace) -> dict[str, float | None]:
    """Peak GB of each variant, None where left out."""
    return {
        variant: None
        if variant == "plain" and args.no_plain_memory
        else memory.measure(variant, args.size, args.batch, args.frames, args.device)
        for variant in memory.VARIANTS
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmark.sh pretrain"
    )
    parser.add_argument("--size", choices=SIZES, default="vit-b16")
    parser.add_argument("--batch", type=int, default=2, help="clips per step, at least 2 (default 2)")
    parser.add_argument("--frames", type=int, default=12, help="frames per clip (default 12)")
    parser.add_argument("--pairs", type=int, default=5, help="steps of each kind that are timed (default 5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-plain-memory", action="store_true", help="do not measure the plain forms' memory (12 GB)")
    add_output_flag(parser)
    args = parser.parse_args(argv)
    if args.batch < 2 or args.pairs < 1:
        parser.error("--batch must be at least 2 (negatives for the matching loss) and --pairs at least 1")
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements; memory first, while this process is still small."""
    facts = machine_facts(args.device)
    peaks = measure_memory(args)
    ours, plain = build(args.size, args.frames, args.device)
    optimizer = build_optimizer(ours, 2 * args.pairs + 2)
    batches = make_batches(ours.config, args.batch, args.device)
    losses = compare_losses(ours, plain, batches)
    flops = count_flops(ours, batches[0])
    minimum = pretraining_minimum(ours.config, batches[0])
    width, tokens = ours.config.vision_width, args.batch * args.frames * (ours.config.grid**2 + 1)
    square = 2048 if args.size == "vit-b16" else 512
    shapes = [(square, square, square), (tokens, width, 4 * width)]
    named = {"ours": batches[0], "plain": batches[1]}
    times = time_steps({"ours": ours, "plain": plain}, named, optimizer, args.pairs, shapes, args.device)
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    counted, least = sum(flops.values()), sum(cost.total for cost in minimum.values())
    rate = statistics.median(times["matrix_rate"])
    shares = [counted / seconds / machine for seconds, machine in zip(times["ours"], times["matrix_rate"], strict=True)]
    return {
        "machine": facts,
        "size": args.size,
        "workload": describe(ours.config, batches[0]),
        "dropout": "0 in both: the plain forms have none",
        "losses": losses,
        "seconds": {"ours": times["ours"], "plain": times["plain"]},
        "median_seconds": {name: statistics.median(times[name]) for name in ("ours", "plain")},
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "peak_gb": peaks,
        "goals": GOALS,
        "flops": {
            "counted": counted,
            "by_operator": flops,
            "minimum": least,
            "minimum_by_term": {
                name: {"forward": cost.forward, "backward": cost.backward} for name, cost in minimum.items()
            },
            "counted_to_minimum": counted / least,
        },
        "matrix_flops_per_second": rate,
        "share_of_matrix_rate": statistics.median(shares),
        "time_shares_percent": {
            "ours": time_shares(ours, batches[0], optimizer, args.device),
            "plain": time_shares(plain, batches[1], optimizer, args.device),
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the report's tables."""
    seconds, goals, flops, peaks = (result[name] for name in ("median_seconds", "goals", "flops", "peak_gb"))
    pairs = " ".join(f"{ratio:.3f}" for ratio in result["ratios"])
    print_table(
        f"pre-training step, {result['size']}, {result['workload']['clips']} clips",
        [
            ("", "measured", "goal"),
            ("seconds per step, ours (median)", seconds["ours"], None),
            ("seconds per step, plain forms (median)", seconds["plain"], None),
            (f"ours / plain, median of {pairs}", result["median_ratio"], f"<= {goals['ratio']}"),
            ("peak GB, ours", peaks["ours"], f"<= {goals['ours']:g}"),
            ("peak GB, ours with --grad_checkpoint", peaks["ours_checkpointed"], f"<= {goals['ours_checkpointed']:g}"),
            ("peak GB, plain forms", peaks["plain"], None),
            ("GFLOP counted", flops["counted"] / 1e9, None),
            ("GFLOP, analytic minimum", flops["minimum"] / 1e9, None),
            ("counted / minimum", flops["counted_to_minimum"], None),
            ("matrix products here, GFLOP/s", result["matrix_flops_per_second"] / 1e9, None),
            ("share of that rate", result["share_of_matrix_rate"], None),
        ],
    )
    shares = result["time_shares_percent"]
    rows = [(name, shares["ours"][name], shares["plain"][name]) for name in shares["ours"]]
    print_table("where the time goes, % of operator time", [("", "ours", "plain"), *rows])
    terms = flops["minimum_by_term"].items()
    print_table(
        "analytic minimum, GFLOP",
        [("", "forward", "backward"), *((name, t["forward"] / 1e9, t["backward"] / 1e9) for name, t in terms)],
    )
    print_table(
        "losses on the same clips",
        [("", "ours", "plain"), *((name, pair["ours"], pair["plain"]) for name, pair in result["losses"].items())],
    )


def main(argv: list[str] | None = None) -> Path:
    args = parse(argv)
    result = run(args)
    show(result)
    path = write_report(args.output, "pretrain", result)
    print(f"\nwritten to {path}")
    return path


if __name__ == "__main__":
    main()
