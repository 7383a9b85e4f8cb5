"""How many drawn negatives are none, over an epoch of retrieval fine-tuning on demo clips with 20 captions each.

The loader is that of tasks/eval_retrieval.py with --expand_msrvtt_sentences; weights are drawn, and every batch has the
same ones. A negative is false if its text and its clip belong together in any sample of the global batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from dataloaders.retrieval import RetrievalTrainDataset
from modules.batch import Batch
from modules.config import VOCAB_SIZE
from modules.objectives.matching import Matching, Negatives
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from utils import make_demo_data
from utils.data.clips import train_loader
from utils.data.retrieval import RetrievalArguments, open_split
from utils.demo.wording import captions, descriptions
from utils.demo.world import Thing, make_scene
from utils.runtime.distributed import Runtime
from utils.settings.parser import parse_arguments

ONE = Runtime(0, 1, 0, torch.device("cpu"))
SEED = 42
SIZES = {"need_object": False, "use_action": False, "vocab_size": VOCAB_SIZE, "context_length": 48, "max_words": 48}


@dataclass
class Count:
    """Negatives that were drawn in an epoch, and those that are none.

    missing: those that there were not. same_clip: of the own clip or its texts. same_text: with the same tokens as the
    own text, or of a clip that has it. samples: that have another sample of their clip or their text in the batch.
    """

    batches: int = 0
    samples: int = 0
    drawn: int = 0
    missing: int = 0
    same_clip: int = 0
    same_text: int = 0

    @property
    def false(self) -> int:
        """Drawn negatives that are none."""
        return self.same_clip + self.same_text

    def add(self, batch: Batch, negatives: Negatives) -> None:
        """Count a batch's negatives, pair by pair, by ids and tokens."""
        lengths, clips = batch["text_lengths"].tolist(), batch["video_id"]
        texts = [tuple(row[:length]) for row, length in zip(batch["text_ids"].tolist(), lengths, strict=True)]
        true = set(zip(texts, clips, strict=True))
        self.batches += 1
        self.samples += sum(
            clips.count(clip) > 1 or texts.count(text) > 1 for text, clip in zip(texts, clips, strict=True)
        )
        own = list(range(len(clips)))
        pairs = [*zip(own, negatives.video.tolist(), strict=True), *zip(negatives.text.tolist(), own, strict=True)]
        for text, clip in pairs:
            if text == clip:
                self.missing += 1
                continue
            self.drawn += 1
            if clips[text] == clips[clip]:
                self.same_clip += 1
            elif (texts[text], clips[clip]) in true:
                self.same_text += 1


def write_captions(folder: Path, count: int) -> None:
    """Give each clip of a folder in MSR-VTT's format `count` captions.

    Every fourth is of one thing alone, which clips may share, and the last is true of all clips. What a scene has too
    few of comes again. Real captions are like that too.
    """
    path, truth = folder / "MSRVTT_data.json", json.loads((folder / "truth.json").read_bytes())["videos"]
    sentences = []
    for number, (video_id, true) in enumerate(truth.items()):
        scene = make_scene(Thing(**thing) for thing in true["objects"])
        draw = np.random.default_rng([SEED, number])
        whole, short = cycle(captions(scene, draw, count)), cycle(descriptions(scene, draw))
        texts = [next(whole if place % 4 else short) for place in range(count - 1)]
        sentences += [{"video_id": video_id, "caption": text} for text in [*texts, "there are shapes"]]
    content = json.loads(path.read_bytes())
    numbered = [{**sentence, "sen_id": number} for number, sentence in enumerate(sentences)]
    path.write_text(json.dumps({**content, "sentences": numbered}))


@torch.no_grad()
def count_epoch(folder: Path, batch_size: int) -> dict[str, Count]:
    """An epoch in the released and in the intended behaviour, on the same batches and similarities.

    Args:
        folder: with train.csv, MSRVTT_data.json and videos.
    """
    flags = ["--do_train", "--expand_msrvtt_sentences", "--num_thread_reader", "0", "--batch_size", str(batch_size)]
    for flag, name in (("train_csv", "train.csv"), ("data_path", "MSRVTT_data.json"), ("features_path", "videos")):
        flags += [f"--{flag}", str(folder / name)]
    args = parse_arguments([*flags, "--output_dir", str(folder)], RetrievalArguments, {"datatype": "msrvtt_retrieval"})
    models = {name: tiny.model(RetrievalModel, name, **SIZES).eval() for name in ("released", "intended")}
    clips = open_split(args, models["intended"].config, "train", lambda line: None)
    data = RetrievalTrainDataset(clips.split, clips.reader, expand=args.expand_msrvtt_sentences)
    counts = {name: Count() for name in models}
    for batch in train_loader(args, data, ONE)[0](0, 0):
        for name, model in models.items():
            counts[name].add(batch, model.objective(Matching).negatives(model.encoded(batch)))
    return counts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = partial(parser.add_argument, type=int)
    whole("--clips", default=200)
    whole("--captions", default=20, help="of each clip")
    whole("--batch_size", default=64, help="samples of the global batch")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        sizes = ["--train_clips", str(args.clips), "--val_clips", "0", "--test_clips", "1", "--size", "48"]
        sizes += ["--msvd_clips", "0", "--lsmdc_clips", "0", "--didemo_clips", "0"]
        if make_demo_data.main(["--output_dir", name, "--seconds", "4", "--fps", "4", "--workers", "1", *sizes]):
            return 1
        folder = Path(name) / "msrvtt"
        write_captions(folder, args.captions)
        counts = count_epoch(folder, args.batch_size)
    for behaviour, count in counts.items():
        print(f"{behaviour}: {', '.join(f'{name} {value}' for name, value in vars(count).items())}")
    return int(counts["intended"].false > 0)


if __name__ == "__main__":
    sys.exit(main())
