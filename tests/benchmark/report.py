"""What every benchmark shares: facts of the machine, medians, tables, and the JSON file that a run leaves."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dataloaders.files import atomic_write_text

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "output" / "benchmark"


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """`--output DIR`, where the JSON file goes."""
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the JSON file")


def machine_facts(device: str = "cpu") -> dict[str, Any]:
    """What times depend on besides the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average_at_start": list(os.getloadavg()),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes).

    Not `ru_maxrss`: that survives the start of a program, so a child's would not be below its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e9


def memory_of(process: int | str, *kinds: str) -> float:
    """Present memory of a process ("self" or its number) in GB, summed over these lines of Linux's smaps_rollup."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(tuple(f"{k}:" for k in kinds))) / 1e9


def write_report(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write `{folder}/{name}.json`, the old file staying until the new one is complete."""
    path = folder / f"{name}.json"
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def print_table(title: str, rows: Sequence[Sequence[Any]]) -> None:
    """Print rows of the same number of cells, numbers to three digits, columns aligned."""
    cells = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return "-" if cell is None else str(cell)
