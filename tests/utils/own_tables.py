"""A demo data set as people have theirs: clips in folders, their objects, and tables of what is said of them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    "split",
    "video",
    "caption",
    "question",
    "answer",
    "option_1",
    "option_2",
    "option_3",
    "option_4",
    "option_5",
)


@dataclass(frozen=True)
class OwnData:
    """Clips {split}/{id}.mp4 and their object files alike, and the rows of one kind by split."""

    clips: Path
    objects: Path
    rows: dict[str, dict[str, list[dict[str, str]]]]

    def table(self, path: Path, kind: str, splits: tuple[str, ...] = ("train", "val", "test")) -> str:
        """Write the rows of a kind, with a column `split` if they are of several splits."""
        columns = COLUMNS if len(splits) > 1 else COLUMNS[1:]
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, extrasaction="ignore")
            table.writeheader()
            table.writerows({"split": split, **row} for split in splits for row in self.rows[kind][split])
        return str(path)


def make_own(msrvtt: Path, folder: Path) -> OwnData:
    """From the demo world in MSR-VTT's form; clips and object files are links to its own."""
    captions = json.loads((msrvtt / "MSRVTT_data.json").read_bytes())["sentences"]
    rows: dict[str, dict[str, list[dict[str, str]]]] = {"captions": {}, "questions": {}, "choices": {}}
    for split in ("train", "val", "test"):
        listed = [line.split(",") for line in (msrvtt / f"{split}.csv").read_text().splitlines()]
        place = listed[0].index("video_id")
        ids = dict.fromkeys(line[place] for line in listed[1:])
        for video_id in ids:
            for source, own, suffix in ((msrvtt / "videos", "clips", "mp4"), (msrvtt / "objects", "objects", "json")):
                link = folder / own / split / f"{video_id}.{suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((source / f"{video_id}.{suffix}").resolve())
        rows["captions"][split] = [
            {"video": f"{split}/{entry['video_id']}.mp4", "caption": entry["caption"]}
            for video_id in ids
            for entry in captions
            if entry["video_id"] == video_id
        ]
        asked = [json.loads(line) for line in (msrvtt / f"qa/{split}.jsonl").read_text().splitlines()]
        rows["questions"][split] = [
            {"video": f"{split}/{entry['video_id']}", "question": entry["question"], "answer": entry["answer"]}
            for entry in asked
        ]
        choices = msrvtt / f"mc_{split}.jsonl"
        lines = choices.read_text().splitlines() if choices.exists() else []
        rows["choices"][split] = [_choice(split, json.loads(line)) for line in lines]
    return OwnData(folder / "clips", folder / "objects", rows)


def _choice(split: str, entry: dict) -> dict[str, str]:
    options = {f"option_{number}": text for number, text in enumerate(entry["options"], 1)}
    video = f"{split}/{entry.get('clip_name', entry.get('video_id'))}"
    return {"video": video, "answer": str(entry["answer"] + 1), **options}
