"""From flags to the data of captioning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets import csv_files, msrvtt, msvd
from modules.beam_search import SearchSettings
from modules.config import ModelConfig, setting
from utils.data.clips import Log, SplitClips, open_captioned
from utils.settings.arguments import OWN, PairArguments


@dataclass
class CaptionArguments(PairArguments):
    """Flags of captioning."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = ("msrvtt_caption", "msvd_caption", OWN)

    beam_size: int = setting(1, "captions that are followed at once; 1 is greedy, as released", minimum=1)
    length_penalty: float = setting(1.0, "a caption of n tokens scores log P / n ** this", minimum=0)
    no_repeat_ngram: int = setting(0, "no sequence of so many tokens comes twice in a caption; 0: no rule", minimum=0)
    max_caption_words: int | None = setting(
        None, "longest caption, in tokens with start and end; default: --max_words", minimum=3
    )
    label_smoothing: float = setting(
        0.0, "share of a token's weight spread over the vocabulary", minimum=0, maximum=0.99
    )
    metric_timeout: float = setting(600.0, "seconds after which a Java program of the metrics is given up", minimum=1)

    def search_settings(self, config: ModelConfig) -> SearchSettings:
        """The settings of the caption search.

        Raises:
            ValueError: captions would be longer than the text tower's positions.
        """
        words = self.max_caption_words or config.max_words
        if words > config.context_length:
            raise ValueError(
                f"--max_caption_words {words}: the text tower has positions for {config.context_length} tokens"
            )
        return SearchSettings(self.beam_size, words - 1, self.length_penalty, self.no_repeat_ngram)


def has_validation(args: CaptionArguments) -> bool:
    """Whether there is a validation split; of MSR-VTT's lists only beside a test list."""
    if args.is_own:
        return args.has_own_validation(csv_files.CAPTIONS)
    return args.data_set != "msrvtt" or not args.is_list_given("val") or args.test_csv is not None


def list_flag(args: CaptionArguments, name: str) -> str | None:
    """The flag that lists the videos of an MSR-VTT split; None for the usual split by the videos' numbers."""
    if name == "test" and args.test_csv:
        return "test_csv"
    own = "train" if name == "train" else "val"
    return f"{own}_csv" if args.is_list_given(own) else None


def read_split(args: CaptionArguments, name: str) -> CaptionSplit:
    """Videos and captions of the `train`, `val` or `test` split as the files give them."""
    if args.is_own:
        return csv_files.read_captions(args.table(name))
    if args.data_set == "msvd":
        return msvd.read_split(args.data_path, name)
    if own := list_flag(args, name):
        return msrvtt.read_train_split(getattr(args, own), args.data_path, f"--{own}")
    return msrvtt.read_standard_split(args.data_path, name)


def open_split(args: CaptionArguments, config: ModelConfig, name: str, log: Log) -> SplitClips:
    """Open captions, videos and objects of a split; errors as `open_captioned`."""
    return open_captioned(args, config, read_split(args, name), name, log)
