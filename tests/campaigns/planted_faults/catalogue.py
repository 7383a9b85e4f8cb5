"""All faults of the campaign; the sound data sets are tried too."""

from __future__ import annotations

from tests.campaigns.planted_faults import object_faults, question_faults, shard_faults, text_faults, video_faults
from tests.campaigns.planted_faults.faults import HARMLESS, Fault

DATA_TYPES = (
    "msrvtt_retrieval", "msvd_retrieval", "lsmdc_retrieval", "didemo_retrieval", "msrvtt_caption", "msvd_caption",
    "msrvtt_qa", "msvd_qa", "msrvtt_mc", "pretrain", "webvid",
)  # fmt: skip
FAULTS = [
    *(Fault("nothing", datatype, lambda _: None, HARMLESS) for datatype in DATA_TYPES),
    *video_faults.faults(),
    *text_faults.faults(),
    *question_faults.faults(),
    *object_faults.faults(),
    *shard_faults.faults(),
]
