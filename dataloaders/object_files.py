"""Objects of a few clips straight from their files, without an object store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataloaders.object_records import ObjectRecord, ObjectSettings, find_object_file, read_record
from dataloaders.samples import UnusableObjects
from modules.utils_object_tractor import ObjectFileError, ObjectReport


class ObjectFiles:
    """Reads {video_id}.json when it is asked for; stands in for an `ObjectStore`.

    Args:
        object_path: folder of the files, or of tsv_files with them.
        label_map: dictionary with "label_to_idx".
        settings: which boxes are kept; `frames` is the number of frames that every file must have.
    """

    def __init__(self, object_path: str | Path, label_map: Mapping[str, Any], settings: ObjectSettings) -> None:
        self.object_path, self.label_map, self.settings = Path(object_path), label_map, settings
        if not self.object_path.is_dir():
            raise FileNotFoundError(f"{object_path}: no such folder of object files (--object_path)")

    def path(self, video_id: str) -> Path | None:
        """The file of a clip; None when it has none."""
        return find_object_file(self.object_path, video_id)

    def get(self, video_id: str) -> ObjectRecord | None:
        """The objects of a clip; None when it has no file.

        Raises:
            UnusableObjects: the file is broken or of another number of frames; names the file and the reason.
        """
        path = self.path(video_id)
        if path is None:
            return None
        try:
            return read_record(path, self.label_map, self.settings, ObjectReport())
        except ObjectFileError as error:
            raise UnusableObjects(
                f"{path}: {error}. Object files are made for the model's own frames: utils/extract_objects.py with "
                "the same --max_frames and --feature_framerate"
            ) from error
