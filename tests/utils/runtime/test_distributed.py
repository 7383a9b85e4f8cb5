"""Launchers, environments and small collectives."""

import datetime
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.processes import free_port
from utils.runtime import distributed
from utils.runtime.distributed import find_runtime

ROOT = Path(__file__).parents[3]
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SCRIPT = f"""
import argparse, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from utils.runtime.distributed import find_runtime
parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", "--local-rank", type=int)
runtime = find_runtime(parser.parse_args().local_rank, "cpu")
assert not torch.distributed.is_initialized()
with runtime.process_group():
    names = runtime.gather_json(["rank", "é" * runtime.rank])
    total = runtime.sum(torch.tensor([1.0, runtime.rank])).tolist()
    runtime.barrier()
    if runtime.is_main:
        print(f"{{runtime.world_size}} {{names}} {{total}}")
"""
ONE = "1 [['rank', '']] [1.0, 0.0]"
TWO = "2 [['rank', ''], ['rank', 'é']] [2.0, 1.0]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ([], ONE),
        (["-m", "torch.distributed.launch", "--nproc_per_node=2", "--master_port"], TWO),
        (["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port"], TWO),
    ],
    ids=["python", "launch", "torchrun"],
)
def test_launchers(tmp_path, launcher, expected):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    port = [str(free_port())] if launcher else []
    environment = {name: value for name, value in os.environ.items() if name not in PLACE}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *launcher, *port, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)


def test_plain_python_is_one_process():
    runtime = find_runtime(device="cpu")
    assert (runtime.rank, runtime.world_size, runtime.local_rank) == (0, 1, 0) and runtime.is_main
    runtime.start()
    assert not torch.distributed.is_initialized()
    runtime.stop()


def test_flag_and_environment_give_the_local_rank(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_runtime(1, "cpu").rank == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "1")
    runtime = find_runtime(1, "cpu")
    assert (runtime.rank, runtime.local_rank) == (1, 0)


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="device 'tpu'"):
        find_runtime(device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device"):
        find_runtime(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="local rank 1 has no GPU"):
        find_runtime(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="RANK=2 with WORLD_SIZE=2"):
        find_runtime(device="cpu")
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ValueError, match="RANK='one' is no whole number"):
        find_runtime(device="cpu")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RuntimeError, match="MASTER_ADDR and MASTER_PORT not set"):
        find_runtime(device="cpu").start()


def test_leaving_the_group_lets_go_of_wrapped_models_that_only_cycles_hold(monkeypatch: pytest.MonkeyPatch):
    class Wrapped:
        def __init__(self) -> None:
            self.itself = self

    calls: list[bool] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append(lone() is None))
    gc.disable()
    try:
        lone = weakref.ref(Wrapped())
        find_runtime(None, "cpu").stop()
    finally:
        gc.enable()
    assert calls == [True]


def test_a_rank_whose_launcher_has_gone_does_not_wait_for_hours(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(distributed, "CONNECT_TIMEOUT", datetime.timedelta(seconds=1))
    with pytest.raises(ConnectionError, match=r"rank 0 does not reach the launcher at 127\.0\.0\.1:\d+.*Start again"):
        find_runtime(device="cpu").start()
    assert not dist.is_initialized()
