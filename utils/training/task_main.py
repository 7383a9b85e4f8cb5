"""The main function of every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dataloaders.decoders import UnreadableVideo
from dataloaders.files import NO_LOCKS, file_lock
from dataloaders.tfrecord import DamagedRecord
from utils.data.loaders import StalledWorker
from utils.evaluation.bad_videos import BadVideos
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.run_log import RunLog
from utils.runtime.terminal import show_error
from utils.settings.arguments import Arguments
from utils.settings.parser import parse_arguments
from utils.training.trainer import NonFiniteLoss

USER_ERRORS = (
    CheckpointError,
    BadVideos,
    NonFiniteLoss,
    DamagedRecord,
    UnreadableVideo,
    StalledWorker,
    OSError,
    ValueError,
)


LOCK_FILE = ".lock"
WAIT_SECONDS = 30.0


class CannotUseFolder(Exception):
    """Another run writes into the output folder, or this one cannot."""


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
    try:
        with _own_folder(args, runtime):
            return _run_logged(task, args, runtime)
    except CannotUseFolder as error:  # not into its log
        show_error(error)
        return 1


def _run_logged(task: Callable[[A, Runtime, RunLog], Task], args: A, runtime: Runtime) -> int:
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


@contextmanager
def _own_folder(args: Arguments, runtime: Runtime) -> Iterator[None]:
    """Keep two runs from writing into one folder: a job that was queued again, processes that outlive their launcher.

    Rank 0 writes what a run writes, so that it holds the lock. Loader workers of a killed run hold it for some seconds
    more, so that long is waited. On a disk without locks the run goes on, with a note.

    Raises:
        CannotUseFolder: another run holds the folder (the message names its process and host), or it is not writable.
    """
    folder = args.output_dir
    with ExitStack() as stack:
        if runtime.is_main:
            try:
                stack.enter_context(file_lock(Path(folder) / LOCK_FILE, timeout=WAIT_SECONDS))
            except TimeoutError as error:
                raise CannotUseFolder(
                    f"{folder}: another run writes there, or worker processes that it left behind ({error}). Stop it, "
                    "or name another --output_dir"
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    message = f"{folder}: cannot be written ({error}); name another --output_dir"
                    raise CannotUseFolder(message) from error
                args.notes.append(f"{folder}: no locks on this disk ({error.strerror}), so another run is not noticed")
        yield
