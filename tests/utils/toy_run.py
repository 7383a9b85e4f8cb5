"""A small run of the real Trainer on a toy model and data set, in this process or as a command for several."""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file

from modules.collectives import global_mean
from modules.parts import Owner
from modules.random_streams import numpy_generator, sample_key
from tests.processes import free_port
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.run_log import RunLog
from utils.runtime.sampler import GlobalBatchSampler
from utils.settings.groups import TrainSettings
from utils.training.trainer import Trainer, TrainResult

WIDTH = 6


@dataclass
class ToyConfig:
    width: int = WIDTH
    need_object: bool = False


@dataclass
class ToyBehaviour:
    preset: str = "intended"


class ToyClip(nn.Module):
    def lower_parameters(self, blocks: int) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if name.startswith("token_embedding."))


class ToyModel(nn.Module):
    """Two losses over an uneven number of terms per sample; `contrastive` alone reaches `clip`."""

    def __init__(self, dropout: float = 0.0, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.config, self.behaviour = ToyConfig(width), ToyBehaviour()
        self.clip = ToyClip()
        self.clip.logit_scale = nn.Parameter(torch.tensor(4.7))
        self.clip.text_projection = nn.Parameter(torch.randn(width, width))
        self.fusion = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout))
        self.matching_head = nn.Linear(width, width)
        self.owners = {"clip": Owner("clip", "clip"), "": Owner("rest", "fusion")}
        self.frame_dropout = 0.0
        self.active: set[str] = {"vtm", "contrastive"}
        self.kill_at: int | None = None
        self.forwards = 0

    def after_update(self) -> None:
        self.clip.logit_scale.data.clamp_(max=math.log(100))

    def remember_trainable(self) -> None:
        self.trainable = {name for name, p in self.named_parameters() if p.requires_grad}

    def set_active_losses(self, names: set[str]) -> None:
        self.active = set(names)
        for name, p in self.named_parameters():
            loss = "contrastive" if name.startswith("clip.") else "vtm"
            p.requires_grad_(name in self.trainable and loss in names)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        self.forwards += 1
        if self.training and self.forwards == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        x, mask = batch["x"], batch["mask"]  # (B, K, D), (B, K)
        out = {}
        count = int(mask.sum())
        if "vtm" in self.active:
            error = (self.matching_head(self.fusion(x)) - x.flip(-1)).square().mean(-1)
            out["vtm"] = global_mean((error * mask).sum(), count)
            out["vtm_accuracy"] = torch.tensor(0.5 if count > 2 else float("nan"))
        if "contrastive" in self.active:
            error = ((x @ self.clip.text_projection) * self.clip.logit_scale - x).square().mean(-1)
            out["contrastive"] = global_mean((error * mask).sum(), count)
        return out


class ToyData(Dataset):
    """Sample i of epoch e is a function of (e, i); sample `bad` is nan, sample `unreadable` is reported as replaced."""

    def __init__(self, length: int = 48, bad: int = -1, unreadable: int = -1, signal_at: int = -1) -> None:
        self.length, self.bad, self.unreadable, self.signal_at = length, bad, unreadable, signal_at

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        if index == self.signal_at and epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        random = numpy_generator(sample_key(1, epoch, index), "toy")
        x = torch.from_numpy(random.standard_normal((4, WIDTH)).astype("float32"))
        if index == self.bad:
            x.fill_(float("nan"))
        mask = torch.arange(4) < 1 + index % 4
        skipped = ["broken.mp4"] if index == self.unreadable else []
        return {"x": x, "mask": mask, "video_id": f"clip{index}", "skipped": skipped}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    lists = {name: [sample[name] for sample in samples] for name in ("video_id", "skipped")}
    return {**lists, **{name: torch.stack([sample[name] for sample in samples]) for name in ("x", "mask")}}


def make_settings(output_dir: Path | str, **changes: Any) -> TrainSettings:
    base = TrainSettings(
        output_dir=str(output_dir), epochs=2, batch_size=8, lr=0.05, fusion_lr=0.05, coef_lr=1.0, freeze_layer_num=-1,
        schedule="warmup_constant", warmup_proportion=0.0, n_display=3, save_every=4, eval_every=5, seed=3,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def make_trainer(
    settings: TrainSettings,
    runtime: Runtime | None = None,
    dropout: float = 0.0,
    workers: int = 0,
    evaluate: Any = None,
    model: ToyModel | None = None,
    contrastive_epochs: int = 1,
    data: ToyData | None = None,
) -> Trainer:
    runtime = runtime or Runtime(0, 1, 0, torch.device("cpu"))
    data = data or ToyData()
    sampler = GlobalBatchSampler(
        len(data), settings.micro_batch_size, runtime.rank, runtime.world_size, seed=settings.seed
    )
    loader = DataLoader(
        data, batch_sampler=sampler, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )

    def make_loader(epoch: int, start_batch: int) -> DataLoader:
        sampler.set_position(epoch, start_batch)
        return loader

    return Trainer(
        model or ToyModel(dropout), runtime, settings, make_loader,
        sampler.batches_per_epoch // settings.gradient_accumulation_steps,
        lambda epoch: {"vtm": 1.0, "contrastive": 0.01 if epoch < contrastive_epochs else 0.0},
        RunLog(settings.output_dir, runtime), evaluate,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> TrainResult:
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--kill_at", type=int, default=None, help="forward pass in which the process is killed")
    parser.add_argument("--stop_rank", type=int, default=None, help="rank that gets SIGTERM in step 3")
    parser.add_argument("--bad_rank", type=int, default=None, help="rank that reads a nan in step 2")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=None)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    runtime = find_runtime(args.local_rank, "cpu")
    settings = make_settings(args.output_dir, **args.settings)
    data = ToyData()
    if runtime.rank == args.bad_rank:
        place = (settings.micro_batch_size, runtime.rank, runtime.world_size)
        data.bad = list(GlobalBatchSampler(len(data), *place, seed=settings.seed))[1][0][1]
        print(f"nan in clip{data.bad}")
    with runtime.process_group():
        trainer = make_trainer(settings, runtime, args.dropout, args.workers, lambda step: {"R1": step}, data=data)
        trainer.model.kill_at = args.kill_at
        if runtime.rank == args.stop_rank:
            before = trainer.loss_weights

            def loss_weights(epoch: int) -> Any:
                os.kill(os.getpid(), signal.SIGTERM)  # arrives in the first update of the epoch
                return before(epoch)

            trainer.loss_weights = loss_weights
        result = trainer.fit()
        trainer.log.close()
    return result


def run_processes(*argv: str, processes: int = 1) -> tuple[list[int], list[str]]:
    """Run `main` in fresh processes, as a launcher would; their exit codes, and what each wrote.

    They are forked from a server that has imported torch once, which saves seconds per process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "torch.utils.data", "torch.nn.parallel", "tqdm"])
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        started, logs = [], []
        for rank in range(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            environment = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
            logs.append(Path(folder) / f"{rank}.txt")
            process = context.Process(target=_as_rank, args=(list(argv), environment, str(logs[-1])))
            process.start()
            started.append(process)
        for process in started:
            process.join()
        return [int(process.exitcode or 0) for process in started], [log.read_text() for log in logs]


def _as_rank(argv: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    # Loader workers are forked from this process as in a real run, and end with it; a fork server would outlive it.
    multiprocessing.set_start_method("fork", force=True)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main(argv)


if __name__ == "__main__":
    main()
