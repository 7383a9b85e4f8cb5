"""All readers of the product that campaigns try."""

from __future__ import annotations

from tests.campaigns.fuzzing import (
    annotation_files,
    caches,
    clip_folders,
    clip_sources,
    clips,
    objects,
    own_tables,
    weights,
)
from tests.campaigns.fuzzing.reader import Reader

MODULES = (annotation_files, own_tables, objects, clips, clip_sources, caches, weights, clip_folders)
ALL = [reader for module in MODULES for reader in module.READERS]
READERS: dict[str, Reader] = {reader.name: reader for reader in ALL}
assert len(READERS) == len(ALL), "two readers of one name"
