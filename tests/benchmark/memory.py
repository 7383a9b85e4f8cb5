"""Peak memory of one variant of the training step, run in a process of its own: prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from tests.benchmark.report import ROOT, peak_memory
from tests.benchmark.steps import SIZES, TASKS, backward, build, build_optimizer, make_batches, update

VARIANTS = ("ours", "ours_checkpointed", "plain")
STEPS = 2  # the optimizer's moments exist from the end of the first step on


def measure(variant: str, size: str, batch_size: int, frames: int, device: str, task: str = "pretrain") -> float:
    """Largest GB (10^9 bytes) that a fresh process needed for two steps: resident memory, or CUDA's allocations."""
    command = [sys.executable, "-m", "tests.benchmark.memory", variant, "--size", size, "--batch", str(batch_size)]
    command += ["--frames", str(frames), "--device", device, "--task", task]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {variant} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["peak_gb"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--size", choices=SIZES, default="vit-b16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", choices=TASKS, default="pretrain")
    args = parser.parse_args(argv)
    ours, plain = build(args.size, args.frames, args.device, args.task)
    ours.set_grad_checkpoint(args.variant == "ours_checkpointed")
    trimmed, untrimmed = make_batches(ours.config, args.batch, args.device, task=args.task)
    model, batch = (plain, untrimmed) if args.variant == "plain" else (ours, trimmed)
    optimizer = build_optimizer(model, STEPS)
    for _ in range(STEPS):
        backward(model, batch)
        update(model, optimizer)
    peak = torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else peak_memory()
    print(json.dumps({"peak_gb": peak}))


if __name__ == "__main__":
    main()
