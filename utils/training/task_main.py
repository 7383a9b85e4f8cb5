"""The main function of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from dataloaders.decoders import UnreadableVideo
from dataloaders.tfrecord import DamagedRecord
from utils.evaluation.bad_videos import BadVideos
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.run_log import RunLog
from utils.settings.arguments import Arguments
from utils.settings.parser import parse_arguments
from utils.training.trainer import NonFiniteLoss

USER_ERRORS = (
    CheckpointError,
    BadVideos,
    NonFiniteLoss,
    DamagedRecord,
    UnreadableVideo,
    FileNotFoundError,
    ValueError,
)


class Task(Protocol):
    """Prepared on construction, before the process group starts; `run` does what the flags ask for."""

    def run(self) -> None: ...


A = TypeVar("A", bound=Arguments)


def run_task(
    task: Callable[[A, Runtime, RunLog], Task],
    kind: type[A],
    argv: Sequence[str] | None,
    description: str | None,
    defaults: Mapping[str, Any] | None = None,
    without_effect: Mapping[str, bool] | None = None,
) -> int:
    """Parse the command line, prepare, join the process group, run; errors that a user can mend are one message.

    Args:
        defaults, without_effect: as for `parse_arguments`.

    Returns:
        Exit status: 0, or 1 after such an error.
    """
    args = parse_arguments(argv, kind=kind, description=description, defaults=defaults, without_effect=without_effect)
    runtime = find_runtime(args.local_rank, args.device)
    log = RunLog(args.output_dir, runtime, args.tensorboard)
    try:
        log.notes(args.notes)
        prepared = task(args, runtime, log)
        with runtime.process_group():
            prepared.run()
    except USER_ERRORS as error:
        log.error(str(error))
        return 1
    finally:
        log.close()
    return 0
