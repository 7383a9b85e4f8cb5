"""Names and annotation files of the demo world's clips, in the structures of the data sets that it imitates."""

from __future__ import annotations

import csv
import json
import mmap
import pickle
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

from utils.demo.wording import captions, descriptions, options, questions
from utils.demo.world import MAX_THINGS, SPLITS, WORDING_STREAM, SceneClip, clip_generator

CAPTIONS_PER_VIDEO = 4
QUESTIONS_PER_VIDEO = 6
WEBVID_PAGE = 50
# First and last+1 MSR-VTT number of each split, as in the captioning task's usual split.
MSRVTT_NUMBERS = {"train": (0, 6513), "val": (6513, 7010), "test": (7010, 10000)}
MSVD_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LSMDC_FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
LSMDC_MOVIE = 50  # clips
LSMDC_FIRST_START, LSMDC_PAUSE = 187_170, 1_540  # milliseconds before the first clip of a movie, and between clips
DIDEMO_SEGMENTS, DIDEMO_ANNOTATORS = 6, 4
DIDEMO_OWNER = 7  # clips


class Place(NamedTuple):
    """A clip's id in a data set, its video below that data set's folder, and its file in the folder of objects."""

    video_id: str
    video: str
    objects: str


def webvid_place(clip: SceneClip) -> Place:
    """Place of a clip in WebVid: `{page_dir}/{videoid}.mp4`."""
    name = webvid_id(clip)
    return Place(name, f"videos/{webvid_page(clip)}/{name}.mp4", f"{name}.json")


def msrvtt_place(clip: SceneClip) -> Place:
    """Place of a clip in MSR-VTT: `video{N}.mp4`."""
    name = msrvtt_id(clip)
    return Place(name, f"videos/{name}.mp4", f"{name}.json")


def msvd_place(clip: SceneClip, seconds: float) -> Place:
    """Place of a clip in MSVD: `{name}.avi`."""
    name = msvd_id(clip, seconds)
    return Place(name, f"YouTubeClips/{name}.avi", f"{name}.json")


def lsmdc_place(clip: SceneClip, seconds: float) -> Place:
    """Place of a clip in LSMDC: `{movie}/{clip_id}.avi`."""
    name = lsmdc_id(clip, seconds)
    return Place(name, f"videos/{lsmdc_movie(clip)}/{name}.avi", f"{name}.json")


def didemo_place(clip: SceneClip) -> Place:
    """Place of a clip in DiDeMo: the id is the name up to its first "."; objects are those of seconds 0 to 31."""
    name = didemo_name(clip)
    return Place(didemo_id(name), f"videos/{name}", f"{name}_[0]_[31].json")


def webvid_id(clip: SceneClip) -> str:
    """Id of a WebVid clip, a number of seven digits or more."""
    return str(1_000_000 + clip.number)


def webvid_page(clip: SceneClip) -> str:
    """The folder of a WebVid clip: a range of pages."""
    first = clip.number // WEBVID_PAGE * WEBVID_PAGE + 1
    return f"{first:06d}_{first + WEBVID_PAGE - 1:06d}"


def msrvtt_id(clip: SceneClip) -> str:
    """Id of an MSR-VTT clip: video0 ... for training, video6513 ... for validation, video7010 ... for test."""
    first, end = MSRVTT_NUMBERS[clip.split]
    if first + clip.number >= end:
        raise ValueError(
            f"MSR-VTT's numbering has room for {end - first} {clip.split} clips, not for {clip.number + 1}"
        )
    return f"video{first + clip.number}"


def msvd_id(clip: SceneClip, seconds: float) -> str:
    """Id of an MSVD clip: eleven characters like a YouTube id, and the first and last second."""
    # An odd factor permutes the numbers below 2^66, so that ids differ and do not look alike.
    number = _serial(clip) * 0x2545F4914F6CDD1D9 % 2**66
    letters = "".join(MSVD_LETTERS[number >> (6 * position) & 63] for position in range(11))
    return f"{letters}_0_{round(seconds)}"


def lsmdc_movie(clip: SceneClip) -> str:
    """The folder of an LSMDC clip: no movie is in two splits."""
    return f"{clip.number // LSMDC_MOVIE * len(SPLITS) + SPLITS.index(clip.split) + 1:04d}_Demo_World"


def lsmdc_id(clip: SceneClip, seconds: float) -> str:
    """Id of an LSMDC clip: the movie, and the start and end in it."""
    return f"{lsmdc_movie(clip)}_{'-'.join(lsmdc_times(clip, seconds))}"


def lsmdc_times(clip: SceneClip, seconds: float) -> tuple[str, str]:
    """Start and end of a clip in its movie, hh.mm.ss.mmm."""
    duration = round(1000 * seconds)
    start = LSMDC_FIRST_START + clip.number % LSMDC_MOVIE * (duration + LSMDC_PAUSE)
    return _clock(start), _clock(start + duration)


def didemo_name(clip: SceneClip) -> str:
    """Name of a DiDeMo clip: Flickr's owner, number and secret, and an extension, which is empty in every tenth."""
    serial = _serial(clip)
    # Odd factors prime to the number of values, as in `msvd_id`.
    photo = 10**9 + serial * 7_368_787_331 % (9 * 10**9)
    secret = serial * 0x9E3779B97F4A7C15 % 2**40
    extension = "" if clip.number % 10 == 3 else "mp4"
    return f"{10_000_000 + serial // DIDEMO_OWNER}@N00_{photo}_{secret:010x}.{extension}"


def didemo_id(name: str) -> str:
    """The key of a video in the LMDB."""
    return name.split(".")[0]


def _serial(clip: SceneClip) -> int:
    """A number from 1 that no other clip of any split has, whatever the size of the world."""
    return clip.number * len(SPLITS) + SPLITS.index(clip.split) + 1


def _clock(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}.{seconds // 60 % 60:02d}.{seconds % 60:02d}.{milliseconds:03d}"


def write_webvid(folder: Path, clips: list[SceneClip], seed: int, seconds: float) -> None:
    """`results_demo_train.csv`: one caption per clip."""
    rows = []
    for clip in clips:
        caption = captions(clip.scene, clip_generator(seed, clip.split, clip.number, WORDING_STREAM), 1)[0]
        duration = "PT00H{:02d}M{:02d}S".format(*divmod(round(seconds), 60))
        url = f"https://example.invalid/{webvid_id(clip)}.mp4"
        rows.append([webvid_id(clip), caption, clip.number // WEBVID_PAGE + 1, webvid_page(clip), duration, url])
    header = ["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"]
    _write_csv(folder / "results_demo_train.csv", header, rows)


def write_msrvtt(folder: Path, clips: list[SceneClip], seed: int) -> None:
    """Split csvs, `MSRVTT_data.json`, `qa/`, and `mc_{val,test}.jsonl`."""
    by_split = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    wording = caption_table(clips, seed)
    _write_csv(folder / "train.csv", ["video_id"], [[msrvtt_id(clip)] for clip in by_split["train"]])
    for split in ("val", "test"):
        rows = []
        for clip in by_split[split]:
            name = msrvtt_id(clip)
            rows.append([f"ret{clip.number}", name.replace("video", "msr"), name, wording[clip][0]])
        _write_csv(folder / f"{split}.csv", ["key", "vid_key", "video_id", "sentence"], rows)
        _write_multiple_choice(folder / f"mc_{split}.jsonl", by_split[split], seed)
    videos = [
        {"video_id": msrvtt_id(clip), "id": number, "split": clip.split.replace("val", "validate"), "url": ""}
        for number, clip in enumerate(clips)
    ]
    sentences = [(msrvtt_id(clip), caption) for clip in clips for caption in wording[clip]]
    data = {
        "videos": videos,
        "sentences": [
            {"video_id": name, "caption": caption, "sen_id": number} for number, (name, caption) in enumerate(sentences)
        ],
    }
    _write_json(folder / "MSRVTT_data.json", data)
    for split in SPLITS:
        lines = []
        for clip in by_split[split]:
            for question in questions(clip.scene, _generator(seed, clip, "qa"), QUESTIONS_PER_VIDEO):
                line = {"answer": question.answer, "question": question.question, "video_id": msrvtt_id(clip)}
                lines.append({**line, "answer_type": question.kind})
        _write_lines(folder / "qa" / f"{split}.jsonl", lines)
        if split == "train":
            _write_answers(folder / "qa" / "train_ans2label.json", [line["answer"] for line in lines])


def _write_multiple_choice(path: Path, clips: list[SceneClip], seed: int) -> None:
    scenes = [clip.scene for clip in clips]
    lines = []
    for clip in clips:
        texts, answer = options(clip.scene, scenes, _generator(seed, clip, "mc"))
        line = {"clip_name": msrvtt_id(clip), "options": texts, "answer": answer, "qid": clip.number}
        lines.append({**line, "caption": texts[answer]})
    _write_lines(path, lines)


def write_msvd(folder: Path, clips: list[SceneClip], seed: int, seconds: float) -> None:
    """Split lists, `raw-captions.pkl`, and `qa/` with the two forms of the number-to-name mapping."""
    names = {clip: msvd_id(clip, seconds) for clip in clips}
    wording = caption_table(clips, seed, "msvd")
    tokens = {names[clip]: [caption.replace(",", " ,").split() for caption in wording[clip]] for clip in clips}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(tokens, protocol=2))
    numbers = {clip: number for number, clip in enumerate(clips, 1)}
    answers: list[str] = []
    next_id = 0
    for split in SPLITS:
        chosen = [clip for clip in clips if clip.split == split]
        _write_text(folder / f"{split}_list.txt", "".join(f"{names[clip]}\n" for clip in chosen))
        entries = []
        for clip in chosen:
            for question in questions(clip.scene, _generator(seed, clip, "msvd_qa"), QUESTIONS_PER_VIDEO):
                entry = {"answer": question.answer, "id": next_id, "question": question.question}
                entries.append({**entry, "video_id": numbers[clip]})
                answers += [question.answer] if split == "train" else []
                next_id += 1
        _write_json(folder / "qa" / f"{split}_qa.json", entries)
    _write_answers(folder / "qa" / "train_ans2label.json", answers)
    _write_json(folder / "qa" / "id_mapping.json", {str(number): names[clip] for clip, number in numbers.items()})
    mapping = "".join(f"{names[clip]} vid{number}\n" for clip, number in numbers.items())
    _write_text(folder / "qa" / "youtube_mapping.txt", mapping)


def write_lsmdc(folder: Path, clips: list[SceneClip], seed: int, seconds: float) -> None:
    """The three files of tab-separated lines without a header: clip id, times as aligned and as extracted, sentence."""
    for split, name in LSMDC_FILES.items():
        lines = []
        for clip in clips:
            if clip.split == split:
                times = lsmdc_times(clip, seconds)
                sentence = captions(clip.scene, _generator(seed, clip, "lsmdc"), 1)[0]
                lines.append("\t".join((lsmdc_id(clip, seconds), *times, *times, sentence)) + "\n")
        _write_text(folder / name, "".join(lines))


def write_didemo(folder: Path, clips: list[SceneClip], seed: int) -> None:
    """Split lists and descriptions: one of each thing, whose moment is the whole clip.

    The entries of a video are apart in the file, as in the data set.
    """
    for split in SPLITS:
        chosen = [clip for clip in clips if clip.split == split]
        _write_text(folder / f"{split}_list.txt", "".join(f"{didemo_name(clip)}\n" for clip in chosen))
        texts = {clip: descriptions(clip.scene, _generator(seed, clip, "didemo")) for clip in chosen}
        entries = [
            {
                "num_segments": DIDEMO_SEGMENTS,
                "description": texts[clip][position],
                "dl_link": "",
                "times": [[0, DIDEMO_SEGMENTS - 1]] * DIDEMO_ANNOTATORS,
                "video": didemo_name(clip),
                "annotation_id": _serial(clip) * MAX_THINGS + position,
            }
            for position in range(MAX_THINGS)
            for clip in chosen
            if position < len(texts[clip])
        ]
        _write_json(folder / f"{split}_data.json", entries)


def pack_didemo(folder: Path) -> None:
    """`videos.lmdb`, the released form of `videos/`: the bytes of every file by its video id.

    Raises:
        OSError: LMDB cannot write it.
    """
    files = sorted((folder / "videos").iterdir())
    # A value takes whole pages, its key a share of others.
    map_size = sum(path.stat().st_size + 2 * mmap.PAGESIZE for path in files) + (1 << 20)
    target = folder / "videos.lmdb"
    try:
        with (
            lmdb.open(str(target), map_size=map_size, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for path in files:
                transaction.put(didemo_id(path.name).encode(), path.read_bytes())
    except lmdb.Error as error:
        raise OSError(f"{target}: {error}; --didemo_clips 0 leaves DiDeMo out") from error


def caption_table(clips: list[SceneClip], seed: int, dataset: str = "msrvtt") -> dict[SceneClip, list[str]]:
    """Captions of every clip; the first is the query of the retrieval csvs."""
    return {clip: captions(clip.scene, _generator(seed, clip, dataset), CAPTIONS_PER_VIDEO) for clip in clips}


def _generator(seed: int, clip: SceneClip, purpose: str) -> np.random.Generator:
    """Random numbers for the wording of one file, apart from those of the others."""
    return np.random.default_rng([seed, SPLITS.index(clip.split), clip.number, WORDING_STREAM, *purpose.encode()])


def write_truth(path: Path, truths: dict[str, dict]) -> None:
    """Write what is true of every video: `{"videos": {video_id: {...}}}`, see utils/make_demo_data.py."""
    _write_json(path, {"videos": truths})


def _write_answers(path: Path, answers: list[str]) -> None:
    _write_json(path, {answer: index for index, answer in enumerate(sorted(set(answers)))})


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_lines(path: Path, lines: list[dict]) -> None:
    _write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
