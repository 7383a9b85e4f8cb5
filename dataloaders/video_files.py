"""Finding and reading clips that lie as video files in a folder, or as the bytes of such files in an LMDB."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import lmdb

from dataloaders.decoders import VIDEO_SUFFIXES, NoAccess, UnreadableVideo, has_av
from dataloaders.files import file_stamp
from dataloaders.frame_cache import CachedClip, FrameCache, Unreadable
from dataloaders.frames import Clip, read_clip
from dataloaders.lmdb_files import LMDB_FILE, read_environment, value_as_file
from dataloaders.samples import ClipFrames, SampleSettings
from dataloaders.transforms import crop_frame

logger = logging.getLogger(__name__)

NO_SUFFIXES = ("", ".")


def walk_files(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield the files anywhere below a folder, each with the real path of the folder that it lies in.

    Links to folders are followed, after all that is no link and in alphabetical order, and no folder is entered twice:
    so links that lead back end, and a folder that has several names goes by its real one, else by the first. A folder
    that cannot be listed is a warning. A link to nowhere is a file, for its reader to name.
    """
    entered: set[str] = set()
    links = deque([str(folder)])
    while links:
        place = links.popleft()
        left = [(place, os.path.realpath(place))]
        while left:
            here, real = left.pop()
            if real in entered:
                continue
            entered.add(real)
            folders = []
            for entry in _listed(here):
                if not _is_folder(entry):
                    yield entry, real
                elif entry.is_symlink():
                    links.append(entry.path)
                else:
                    folders.append((entry.path, os.path.join(real, entry.name)))
            left += reversed(folders)


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("%s cannot be listed (%s): what lies in it is left out", folder, error.strerror)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to what may not be looked at
        return False


def videos_below(folder: str | Path) -> list[Path]:
    """The videos anywhere below a folder, as `walk_files`.

    A link to a file that is listed already is left out if it has the same stem: the stem is the id of a video, so that
    it is the same video once more. Under another stem it is another video.
    """
    videos: dict[tuple[str, str], Path] = {}
    for entry, real in walk_files(folder):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in VIDEO_SUFFIXES:
            place = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            videos.setdefault((stem, place), Path(entry))
    return list(videos.values())


def find_videos(folder: str | Path, video_ids: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Locate clips by stem (the name up to its last dot) anywhere below a folder.

    Returns:
        The files by video id, and the ids that have none, both in the order of `video_ids`. Of several files with one
        stem the first of `walk_files` is taken; one without extension only if none has a usual one.
    """
    wanted = list(dict.fromkeys(video_ids))
    names = set(wanted)
    found: dict[str, Path] = {}
    without_suffix: dict[str, Path] = {}
    for entry, _ in walk_files(folder):
        stem, suffix = os.path.splitext(entry.name)
        if stem not in names:
            continue
        if suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(stem, Path(entry))
        elif suffix in NO_SUFFIXES:
            without_suffix.setdefault(stem, Path(entry))
    found = {**without_suffix, **found}
    return {i: found[i] for i in wanted if i in found}, [i for i in wanted if i not in found]


def split_extension(path: str) -> tuple[str, str]:
    """A path without the usual extension of a video, and that extension; "" for any other ending."""
    stem, suffix = os.path.splitext(path)
    return (stem, suffix) if suffix.lower() in VIDEO_SUFFIXES else (path, "")


def find_named_videos(folder: str | Path, files: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
    """Locate clips by their paths below a folder, which may lack the extension.

    Args:
        files: path by video id.

    Returns:
        As `find_videos`.

    Raises:
        ValueError: a path without extension that several files may be; names them.
    """
    inside: dict[str, dict[str, list[str]]] = {}
    found: dict[str, Path] = {}
    for video_id, path in files.items():
        place, name = os.path.split(path)
        if place not in inside:
            inside[place] = _names_by_stem(Path(folder, place))
        stem, suffix = split_extension(name)
        names = [there for there in inside[place].get(stem, ()) if not suffix or there == name]
        if len(names) > 1:
            listed = ", ".join(names)
            raise ValueError(f"{folder}: {path} may be {listed}; write it with its extension, or remove the others")
        if names:
            found[video_id] = Path(folder, place, names[0])
    return found, [video_id for video_id in files if video_id not in found]


def _names_by_stem(folder: Path) -> dict[str, list[str]]:
    """Files of a folder by their names without extension; those without any count where no other has the stem."""
    named: dict[str, list[str]] = {}
    bare: dict[str, list[str]] = {}
    for entry in _listed(str(folder)) if folder.is_dir() else ():
        if _is_folder(entry):
            continue
        stem, suffix = split_extension(entry.name)
        if suffix:
            named.setdefault(stem, []).append(entry.name)
        else:
            bare[entry.name.removesuffix(".")] = [entry.name]
    return {**bare, **named}


def list_videos(places: Iterable[str | Path]) -> list[Path]:
    """Files as they are, folders as the videos anywhere below them, in alphabetical order.

    Raises:
        FileNotFoundError: a place that is not there, or a folder without a video.
    """
    videos: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(videos_below(place))
            if not inside:
                raise FileNotFoundError(f"{place}: no video in this folder")
            videos += inside
        elif place.is_file():
            videos.append(place)
        else:
            raise FileNotFoundError(f"{place}: no such video")
    return videos


def read_sampled(path: str | Path, settings: SampleSettings) -> Clip:
    """The frames of a video file that the settings pick (dataloaders/frames.py); UnreadableVideo if none decodes."""
    return read_clip(path, settings.max_frames, settings.frames)


def read_frames(path: Path, settings: SampleSettings) -> ClipFrames:
    """As `read_sampled`, each frame cut to the model's picture as it is decoded, so that large ones are never held.

    The picture is that of `frames_to_tensor`, which changes no frame of this size.
    """
    crop = partial(crop_frame, resolution=settings.resolution)
    return clip_frames(read_clip(path, settings.max_frames, settings.frames, crop))


def clip_frames(clip: Clip) -> ClipFrames:
    """The frames of a clip for samples, whole or cut to the model's picture, with the size that its boxes are of."""
    size = (clip.width, clip.height)
    return ClipFrames(clip.frames, size, size, clip.frame_indices.tolist(), clip.notes)


def path_stamp(path: Path) -> str:
    """Name, size and time of a file."""
    try:
        return f"{path.name} {file_stamp(path)}"
    except OSError:
        return ""


class VideoSource(Protocol):
    """A source of videos by id: a folder, an LMDB, or either with a cache before it."""

    def stamp(self, video_id: str) -> str:
        """Name, size and time of a video's file, the same as long as its frames are; "" without a file."""

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames by the frame rule; UnreadableVideo if there are none."""


class CachedVideos:
    """Videos whose finished frames a cache keeps (dataloaders/frame_cache.py)."""

    def __init__(self, videos: VideoSource, cache: FrameCache) -> None:
        self.videos, self.cache = videos, cache

    def stamp(self, video_id: str) -> str:
        """Of the video itself."""
        return self.videos.stamp(video_id)

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames from the cache, or from the video and into the cache; UnreadableVideo as the video, remembered."""
        stamp = self.stamp(video_id)
        if not stamp:  # there is no file
            return self.videos.read(video_id, settings)
        key = frame_key(stamp, settings)
        found = self.cache.get(key)
        if isinstance(found, Unreadable):
            raise UnreadableVideo(found.reason)
        if found is not None:
            return ClipFrames(found.frames, found.original_size, found.original_size, found.frame_indices, found.notes)
        try:
            clip = self.videos.read(video_id, settings)
        except NoAccess:
            raise
        except UnreadableVideo as error:
            self.cache.put_unreadable(key, str(error))
            raise
        assert clip.original_size is not None and clip.frame_indices is not None
        frames, notes = list(clip.frames), list(clip.notes)
        self.cache.put(key, CachedClip(frames, clip.original_size, list(clip.frame_indices), notes))
        return clip


def frame_key(stamp: str, settings: SampleSettings) -> str:
    """Digest of all that the frames of `read_frames` depend on.

    What is unreadable without PyAV may be readable with it.
    """
    backend = settings.frames.video_backend
    decoder = f"auto{'+av' if has_av() else ''}" if backend == "auto" else backend
    values = {"video": stamp, "decoder": decoder, "max_frames": settings.max_frames, **settings.frames.rule()}
    text = json.dumps({**values, "resolution": settings.resolution}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class PathVideos:
    """Videos whose ids are the paths of their files."""

    def stamp(self, video_id: str) -> str:
        """Name, size and time of the file."""
        return path_stamp(Path(video_id))

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames by the frame rule; UnreadableVideo if there are none."""
        return read_frames(Path(video_id), settings)


class VideoFolder:
    """Videos as files anywhere below a folder.

    Args:
        files: paths below the folder by id, where videos are found by these; ValueError if one may be several files.

    Attributes:
        video_ids: those of the ids given that have a file, in their order.
        missing: the others.
    """

    def __init__(self, folder: str | Path, video_ids: Iterable[str], files: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        if files:
            self._files, self.missing = find_named_videos(folder, {i: files[i] for i in dict.fromkeys(video_ids)})
        else:
            self._files, self.missing = find_videos(folder, video_ids)
        self.video_ids = list(self._files)
        names = Counter(path.name for path in self._files.values())
        self._doubled = {name for name, count in names.items() if count > 1}

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames of a video by the frame rule; UnreadableVideo, with the file, if there are none."""
        if video_id not in self._files:
            raise UnreadableVideo(f"{self.folder}: no video file of {video_id}")
        return read_frames(self._files[video_id], settings)

    def stamp(self, video_id: str) -> str:
        """Name, size and time of a video's file; of files with one name in several folders the id too."""
        if video_id not in self._files:
            return ""
        path = self._files[video_id]
        stamp = path_stamp(path)
        return f"{video_id} {stamp}" if stamp and path.name in self._doubled else stamp


class VideoLmdb:
    """Videos as values of an LMDB: the key is the video id, the value the whole file. Pickled as its path and ids.

    Attributes:
        video_ids: those of the ids given that are keys, in their order.
        missing: the others.

    Raises:
        OSError: the LMDB cannot be opened, or is incomplete.
    """

    def __init__(self, path: str | Path, video_ids: Iterable[str]) -> None:
        self.path = Path(path)
        self.video_ids: list[str] = []
        self.missing: list[str] = []
        with self._environment().begin(buffers=True) as transaction, transaction.cursor() as cursor:
            for video_id in dict.fromkeys(video_ids):
                (self.video_ids if cursor.set_key(video_id.encode()) else self.missing).append(video_id)

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames of a video by the frame rule; UnreadableVideo, with the key, if there are none."""
        name = f"{self.path}, key {video_id!r}"
        self._environment()  # opened here, so that an LMDB that cannot be is an OSError
        try:
            with value_as_file(self.path, video_id) as file:
                try:
                    clip = read_frames(file, settings)
                    return replace(clip, notes=[note.replace(str(file), name) for note in clip.notes])
                except UnreadableVideo as error:
                    raise UnreadableVideo(str(error).replace(str(file), name)) from error
        except KeyError as error:
            raise UnreadableVideo(f"{name}: there is no such key") from error

    def stamp(self, video_id: str) -> str:
        """Key of the video, size and time of the LMDB."""
        return f"{video_id} {file_stamp(self.path / LMDB_FILE)}"

    def _environment(self) -> lmdb.Environment:
        try:
            return read_environment(self.path, readahead=True)
        except lmdb.Error as error:
            raise OSError(f"{self.path} is not a readable LMDB: {error}; copy it again (--features_path)") from error


def lmdb_keys(path: Path) -> Iterator[str]:
    """Yield the keys of an LMDB of videos that `VideoLmdb` can open."""
    with read_environment(path, readahead=True).begin(buffers=True) as transaction, transaction.cursor() as cursor:
        for key in cursor.iternext(keys=True, values=False):
            yield bytes(key).decode(errors="replace")


def open_videos(
    path: str | Path, video_ids: Iterable[str], files: Mapping[str, str] | None = None
) -> VideoFolder | VideoLmdb:
    """The videos with these ids, in an LMDB if the folder is one, else in files anywhere below it.

    Args:
        files: as for `VideoFolder`.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the folder is an LMDB that cannot be read.
        ValueError: as `VideoFolder`.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of videos (--features_path)")
    return VideoLmdb(path, video_ids) if (path / LMDB_FILE).is_file() else VideoFolder(path, video_ids, files)
