"""Records of a run: log.txt, metrics.jsonl, config.json and, when asked, TensorBoard files."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataloaders.files import atomic_write_bytes, atomic_write_text
from dataloaders.frames import FRAME_RULE
from modules.foreign_text import parse_json
from utils.runtime.distributed import Runtime
from utils.runtime.terminal import ShownFormatter

logger = logging.getLogger(__name__)
LOGGERS = ("dataloaders", "modules", "tasks", "utils")  # what the repository's packages log lands in log.txt
DELETE_LINE = "delete the line, of which nothing is needed to go on"
LABEL_MAP_FILE = "label_map.json"
HANDLER_NAME = "run_log"
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "lmdb", "open-clip-torch", "HanTa")


class RunLog:
    """Log lines on stdout and in `log.txt`, numbers in `metrics.jsonl`; rank 0 writes, other ranks only report errors.

    A process logs to one folder at a time: a new RunLog takes the place of the one before.

    Args:
        output_dir: folder of the run; made if absent.
        runtime: this process.
        tensorboard: write TensorBoard files to `output_dir/tensorboard` too.

    Raises:
        ModuleNotFoundError: `tensorboard` without tensorboardX.
    """

    def __init__(self, output_dir: str | Path, runtime: Runtime, tensorboard: bool = False) -> None:
        self.folder = Path(output_dir)
        self.runtime = runtime
        self.metrics_path = self.folder / "metrics.jsonl"
        self._tensorboard = tensorboard and runtime.is_main
        self._writer: Any = None
        _remove_handlers()
        if runtime.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            handlers: list[logging.Handler] = [
                logging.StreamHandler(sys.stdout),
                logging.FileHandler(self.folder / "log.txt", encoding="utf-8"),
            ]
        else:
            handlers = [logging.StreamHandler(sys.stderr)]
        rank = "" if runtime.is_main else f" rank {runtime.rank}"
        for handler in handlers:
            handler.set_name(HANDLER_NAME)
            handler.setLevel(logging.INFO if runtime.is_main else logging.ERROR)
            handler.setFormatter(ShownFormatter(f"%(asctime)s{rank} %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            for name in LOGGERS:
                logging.getLogger(name).addHandler(handler)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
        if self._tensorboard:
            self._open_tensorboard(None)

    def info(self, message: str) -> None:
        """One line for the log (rank 0)."""
        logger.info(message)

    def warning(self, message: str) -> None:
        """One line for the log (rank 0)."""
        logger.warning(message)

    def error(self, message: str) -> None:
        """One line from any rank."""
        logger.error(message)

    def notes(self, lines: Iterable[str]) -> None:
        """One warning for each line, such as `Arguments.notes`."""
        for line in lines:
            self.warning(line)

    def metrics(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line {"kind", "step", ...} to metrics.jsonl; numbers go to TensorBoard as `kind/name`.

        `values` may nest dicts; numbers that JSON cannot hold (nan, inf) become null.
        """
        if not self.runtime.is_main:
            return
        line = {"kind": kind, "step": step, **_finite(values)}
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self._writer is not None:
            for name, number in _flatten(values):
                self._writer.add_scalar(f"{kind}/{name}", number, step)
            self._writer.flush()

    def cut_metrics(self, step: int, repeats_evaluation: bool = False) -> None:
        """Drop the lines beyond `step`, which a resumed run writes again, and a last line cut short by a kill.

        Args:
            step: the restored step.
            repeats_evaluation: the evaluation at `step` itself is run again, so its line goes too.
        """
        if not self.runtime.is_main:
            return
        if self.metrics_path.exists():
            kept = [
                text
                for text, line in _read_lines(self.metrics_path)
                if line["step"] < step
                or (line["step"] == step and not (repeats_evaluation and line["kind"] != "train"))
            ]
            atomic_write_text(self.metrics_path, "".join(kept))
        if self._tensorboard:
            self._open_tensorboard(purge_step=step + 1)

    def scores(self, title: str, metrics: Mapping[str, Any]) -> None:
        """One line for the log with the fractions among some metrics."""
        shown = " ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float))
        self.info(f"{title}: {shown}")

    def write_run(self, arguments: Mapping[str, Any], model: Any) -> None:
        """Write config.json: settings by flag, the model's `config` and `behaviour`, versions and world size.

        A model with objects has its label map copied beside it: its checkpoints are then used without other folders.
        """
        if self.runtime.is_main:
            content = {
                "arguments": arguments,
                "model": asdict(model.config),
                "behaviour": asdict(model.behaviour),
                "frame_rule": FRAME_RULE,
                "versions": {"python": platform.python_version(), **_package_versions()},
                "world_size": self.runtime.world_size,
            }
            atomic_write_text(self.folder / "config.json", json.dumps(content, indent=2) + "\n")
            label_map = Path(arguments.get("labelmap_path") or "")
            if model.config.need_object and label_map.is_file():
                atomic_write_bytes(self.folder / LABEL_MAP_FILE, label_map.read_bytes())

    def close(self) -> None:
        """Release the files."""
        _remove_handlers()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_tensorboard(self, purge_step: int | None) -> None:
        from tensorboardX import SummaryWriter  # only where asked for

        if self._writer is not None:
            self._writer.close()
        self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge_step)


def _remove_handlers() -> None:
    for name in LOGGERS:
        for handler in list(logging.getLogger(name).handlers):
            if handler.get_name() == HANDLER_NAME:
                logging.getLogger(name).removeHandler(handler)
                handler.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; ValueError with file and line for one that is damaged."""
    return [line for _, line in _read_lines(Path(path))]


def _read_lines(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:  # a run may be writing it
        for number, content in enumerate(file, 1):
            if content.endswith(b"\n"):  # without: the line that a kill cut short
                place = f"{path}, line {number}"
                try:
                    text = content.decode()
                except UnicodeDecodeError as error:
                    raise ValueError(f"{place}: not UTF-8; {DELETE_LINE}") from error
                line = parse_json(text, place, DELETE_LINE)
                if not isinstance(line, dict) or type(line.get("step")) is not int or "kind" not in line:
                    raise ValueError(f"{place}: not the metrics of a step; {DELETE_LINE}")
                yield text, line


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, value


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
