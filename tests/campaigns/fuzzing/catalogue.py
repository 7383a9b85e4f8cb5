"""All readers of the product that campaigns try."""

from __future__ import annotations

from tests.campaigns.fuzzing import annotation_files, caches, clips, objects, weights
from tests.campaigns.fuzzing.reader import Reader

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (*annotation_files.READERS, *objects.READERS, *clips.READERS, *caches.READERS, *weights.READERS)
}
