"""Models by their name on the Hugging Face hub, `hf-hub:OWNER/NAME[@REVISION]`, where a user writes such a name.

Only configuration and one form of the weights are fetched, never code, into the cache that the hub's own programs use.
Without network what is cached there is used.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from utils.runtime.checkpoint import CheckpointError
from utils.settings.groups import HUB_PREFIX

logger = logging.getLogger(__name__)

FORM = f"{HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME@REVISION"
NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95})/([A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,199}))?", re.ASCII)
DEFAULT_REVISION = "main"
SECONDS = 20.0  # that the hub may take to answer, before it counts as out of reach
# What says what the weights are; `label_map.json` and `answers.json` are of utils/export_model.py, and detectors that
# look for words have a tokenizer.
CONFIGURATION = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "label_map.json",
    "answers.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
# Forms of the weights, the best first; an index is followed by its parts.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX = re.compile(r"(\w+)\.(\w+)\.index\.json")
MAX_PARTS = 1000


class HubName(NamedTuple):
    """A repository of the hub and a revision of it: a branch, a tag or a commit."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"{HUB_PREFIX}{self.repository}@{self.revision}"


def fetched(path: str | Path) -> str | Path:
    """The folder of a model on the hub, as `fetch`; anything else as it is."""
    return fetch(str(path)) if str(path).startswith(HUB_PREFIX) else path


def parse_name(text: str) -> HubName:
    """The repository and revision of a name; CheckpointError for one of another form."""
    match = NAME.fullmatch(text.removeprefix(HUB_PREFIX))
    if not match or ".." in text or "--" in text or "//" in text or text.endswith(("/", ".", ".git", ".lock")):
        raise CheckpointError(f"{text[:200]!r} is no name of a model on the hub: write {FORM}")
    owner, name, revision = match.groups()
    return HubName(f"{owner}/{name}", revision or DEFAULT_REVISION)


def fetch(text: str) -> Path:
    """The folder, in the hub's cache, with the configuration and the weights of a model that the user named.

    Raises:
        CheckpointError: huggingface_hub is not installed; the name is none; there is no such repository or revision, or
            it is not open to this user; it has no weights; or there is no network and the cache does not have it.
    """
    name = parse_name(text)
    try:
        import huggingface_hub as hub  # only where such a name is given
        from huggingface_hub import errors
    except ImportError as error:
        raise CheckpointError(
            f"{name}: needs the package huggingface_hub (requirements-optional.txt): pip install huggingface_hub. Or "
            f"fetch the files by hand: {_by_hand(name)}"
        ) from error
    try:
        with _explained(name, errors):
            listing = hub.HfApi().model_info(name.repository, revision=name.revision, timeout=SECONDS).siblings or []
    except CheckpointError:
        raise
    except Exception as error:  # the HTTP client, whose errors they are, is another one from version to version
        return _cached(hub, name, error)
    files = _chosen(name, [file.rfilename for file in listing])
    logger.info("%s: fetching what is not cached of %s from %s", name, ", ".join(files), _page(name))
    try:
        with _explained(name, errors):
            folder = hub.snapshot_download(name.repository, revision=name.revision, allow_patterns=files)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{name}: not fetched ({_reason(error)}); what has come is kept, so start again, or fetch the files by "
            f"hand: {_by_hand(name, files)}"
        ) from error
    return _whole(Path(folder), files, name)


@contextmanager
def _explained(name: HubName, errors: Any) -> Iterator[None]:
    """What the hub says on purpose, as CheckpointError."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: its owner gives access on request; ask for it on {_page(name)}, then log in with: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such model on the hub, or a private one; correct the name, or log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the model has no such branch, tag or commit; see {_page(name)}") from error


def _cached(hub: Any, name: HubName, cause: Exception) -> Path:
    """The folder of what was fetched before."""

    places = (
        hub.try_to_load_from_cache(name.repository, file, revision=name.revision) for file in (*CONFIGURATION, *WEIGHTS)
    )
    found = next((place for place in places if isinstance(place, str)), None)
    try:
        files = _chosen(name, [path.name for path in Path(found).parent.iterdir()] if found else ())
        # It knows whether the repository has configuration files that the cache does not have.
        wanted = [*CONFIGURATION, *files]
        folder = hub.snapshot_download(
            name.repository, revision=name.revision, allow_patterns=wanted, local_files_only=True
        )
    except (CheckpointError, OSError) as error:
        raise CheckpointError(
            f"{name}: the hub cannot be reached ({_reason(cause)}), and the cache does not have it whole. Fetch the "
            f"files by hand: {_by_hand(name)}"
        ) from error
    logger.info("%s: the hub cannot be reached; cached %s are used", name, ", ".join(files))
    return _whole(Path(folder), files, name)


def _chosen(name: HubName, there: Iterable[str]) -> list[str]:
    """Of a repository's files those that are needed: its configuration, and the best form of weights.

    Raises:
        CheckpointError: there are none, or parts are missing.
    """
    there = sorted(there)
    best = next((file for file in WEIGHTS if file in there), None)
    if best is None:
        raise CheckpointError(f"{name}: has no weights that can be read: {', '.join(WEIGHTS)}; see {_page(name)}")
    return [*(file for file in CONFIGURATION if file in there), best, *_parts(name, best, there)]


def _parts(name: HubName, weights: str, there: list[str]) -> list[str]:
    """The parts that an index of weights has; CheckpointError unless all of them are there."""
    index = INDEX.fullmatch(weights)
    if not index:
        return []
    found = [part for file in there if (part := re.fullmatch(rf"{index[1]}-(\d{{5}})-of-(\d{{5}})\.{index[2]}", file))]
    if {part[2] for part in found} != {f"{len(found):05}"} or len(found) > MAX_PARTS:
        raise CheckpointError(f"{name}: the parts of {weights} are not all there, or too many; see {_page(name)}")
    return [part[0] for part in found]


def _whole(folder: Path, files: list[str], name: HubName) -> Path:
    """The folder, if these files are in it."""
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise CheckpointError(f"{name}: {', '.join(missing)} did not come into {folder}; start again")
    return folder


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _page(name: HubName) -> str:
    """Where a person finds the repository."""
    return f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{name.repository}/tree/{name.revision}"


def _by_hand(name: HubName, files: Iterable[str] = ()) -> str:
    """How to do without: which files, from where, to where."""
    wanted = ", ".join(files) or (
        f"{', '.join(CONFIGURATION)}, as far as there are such, and the first that there is of {', '.join(WEIGHTS)}, "
        "an index with all its parts"
    )
    return f"from {_page(name)} put {wanted} into a folder, and give that folder instead of the name"
