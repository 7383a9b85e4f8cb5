"""Fine-tune and evaluate question answering: `python tasks/eval_qa.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.question_samples import AnswerCode, QuestionDataset, QuestionTrainDataset, collate_questions
from modules.tasks.answering import AnswerModel
from modules.tokenizer import ClipTokenizer
from utils.data.clips import evaluation_loader
from utils.data.questions import NEVER_READ, AnswerArguments, choose_answers, has_validation, open_questions
from utils.evaluation.answers import evaluate_answers
from utils.evaluation.result import Evaluation
from utils.models.setup import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class QuestionAnswering(FineTuning):
    """By default answers are classes; in released behaviour they are the first tokens of answers."""

    selection_metric = "accuracy"
    model_class: type[AnswerModel] = AnswerModel
    collate = staticmethod(collate_questions)
    heads = ("answer", "vocabulary")

    def __init__(self, args: AnswerArguments, runtime: Runtime, log: RunLog) -> None:
        answers = choose_answers(args, log.info) if args.do_train else []
        model = setup_model(self.model_class, args, log.info, answers, heads=args.init_heads)
        super().__init__(args, runtime, log, model)
        self.args: AnswerArguments = args
        self.model: AnswerModel = model
        tokenizer = ClipTokenizer(model.config.vocab_size)
        self.code = AnswerCode(model.config.answers if model.is_classifier else None, tokenizer)
        open_one = partial(open_questions, args, model.config, code=self.code, log=log.info)
        self.open_splits(open_one, has_validation=has_validation(args))

    def train_dataset(self) -> Dataset:
        """Clips with up to --questions_per_clip questions each."""
        own = self.splits["train"]
        return QuestionTrainDataset(own.questions, own.clips.reader, self.code, self.args.questions_per_clip)

    def evaluate(self, split: str) -> Evaluation:
        """Answer a split's questions and compare."""
        own = self.splits[split]
        dataset = QuestionDataset(own.questions, own.clips.reader, self.code)
        return evaluate_answers(
            self.model,
            own.questions,
            self.code,
            evaluation_loader(self.args, dataset, self.runtime, collate_questions),
            self.runtime,
            self.args,
            missing=own.clips.missing,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit status."""
    defaults = {"datatype": "msrvtt_qa", "schedule": "warmup_linear"}
    return run_task(QuestionAnswering, AnswerArguments, argv, __doc__, defaults, NEVER_READ)


if __name__ == "__main__":
    sys.exit(main())
