"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from tests.world import ROOT
from utils.runtime import memory

# Left alone, glibc moves its thresholds with what it has seen, and what lies above the blocks decides whether it gives
# them back. Thresholds that are set stay: then each block is mapped anew.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

FAULTS = """
import resource, sys
import torch
from utils.runtime.memory import keep_freed_memory

assert len(sys.argv) == 1 or keep_freed_memory()

def step():
    blocks = [torch.ones(4_000_000) for _ in range(3)]

for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_a_step_takes_again_what_the_last_one_has_freed():
    plain, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, *more], cwd=ROOT, env=os.environ | GIVES_BACK))
        for more in ([], ["keep"])
    )
    assert plain > 100 and kept < plain / 10, (plain, kept)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
