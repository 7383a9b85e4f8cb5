"""A row of the table: a source written, read by both sides, and compared."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.clip_sources.comparison import BOUND, Difference, differences, load_ours, our_features
from tests.clip_sources.source import LOADS, REFUSED, Source
from utils.runtime.checkpoint import CheckpointError

HEAD = "| source | library | form | activation | image | text | logits | outcome |"
LONGEST = 110  # characters of a message in a cell


class Row(NamedTuple):
    """What came of a source: the difference or the message of the refusal, and what is wrong with that, if anything."""

    source: Source
    difference: Difference | None
    message: str
    fault: str
    note: str = ""


def try_source(source: Source) -> Row:
    """Write a source, let its library and this project compute, and hold both against each other."""
    with tempfile.TemporaryDirectory() as scratch:
        written = source.make(Path(scratch))
        try:
            model = load_ours(written.archive, written.flags, written.inputs)
        except (CheckpointError, ValueError) as error:
            message = str(error).replace(scratch, "...")
            return Row(source, None, message, _fault_of_refusal(source, message, written.archive.name), written.note)
        except Exception as error:  # what is no refusal is a fault of the reader, and the next row is tried
            return Row(source, None, repr(error), "raised something else", written.note)
        if written.reference is None:
            return Row(source, None, "", "taken in silence", written.note)
        difference = differences(our_features(model, written.inputs), written.reference)
        if source.outcome == REFUSED:
            fault = "taken in silence"
        else:
            fault = "" if difference.largest <= BOUND else f"above {BOUND:g}"
        return Row(source, difference, "", fault, written.note)


def _fault_of_refusal(source: Source, message: str, archive: str) -> str:
    if source.outcome == LOADS:
        return "refused"
    if archive not in message and "..." not in message:
        return "the message does not name the file"
    return "" if re.search(source.message, message) else f"the message does not say {source.message}"


def line(row: Row) -> str:
    """The row as a line of the table."""
    source = row.source
    cells = [source.name, source.library, source.form, source.activation]
    cells += ["", "", ""] if row.difference is None else [f"{value:.1e}" for value in row.difference]
    outcome = f"**{row.fault}** " if row.fault else ""
    if row.message:
        outcome += "refused: " + _short(row.message)
    elif row.difference is not None:
        outcome += "loads"
    if row.note:
        outcome += f" ({row.note})"
    return "| " + " | ".join(cell.replace("|", "/") for cell in [*cells, outcome.strip()]) + " |"


def _short(message: str) -> str:
    """A message in one line, without the path that it begins with."""
    text = " ".join(message.split())
    text = re.sub(r"^\.\.\.(/model)?(/|: )", "", text)
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
