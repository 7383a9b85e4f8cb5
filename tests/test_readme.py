"""The commands that the README prints exist, and know the flags that it gives them; its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Words of every command of the README's bash blocks, without variables that are set before it and comments."""
    lines = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [
        line[next(i for i, word in enumerate(line) if "=" not in word) :] for line in words if not _is_setting(line)
    ]


def _is_setting(words: list[str]) -> bool:
    return all("=" in word for word in words)


def python_commands() -> list[list[str]]:
    """Script and arguments of those that run a file of this repository."""
    found = []
    for words in commands():
        place = next((i for i, word in enumerate(words) if re.fullmatch(r"(\./)?(utils|tasks)/\w+\.py", word)), None)
        if place is not None:
            found.append([words[place].removeprefix("./"), *words[place + 1 :]])
    return found


def test_the_readme_has_the_commands_of_every_part():
    scripts = {words[0] for words in python_commands()}
    assert {f"tasks/{name}.py" for name in ("pre_training", "predict", "eval_captioning")} <= scripts
    assert {f"utils/{name}.py" for name in ("extract_objects", "check_data", "visualize", "plot_run")} <= scripts
    assert len(python_commands()) > 15


@pytest.mark.parametrize("words", python_commands(), ids=lambda words: " ".join(words)[:60])
def test_commands_know_their_flags(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert (ROOT / words[0]).is_file()
    module = importlib.import_module(words[0].removesuffix(".py").replace("/", "."))
    subcommand = words[1:2] if words[0] == "tasks/predict.py" else []
    with pytest.raises(SystemExit) as ended:
        module.main([*subcommand, "--help"])
    assert ended.value.code == 0
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    flags = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
    silent = {"--datatype"} if words[0] == "tasks/pre_training.py" else set()
    assert flags - silent <= known


def test_scripts_that_are_named_exist():
    named = {word for words in commands() for word in words if word.startswith("scripts/")}
    assert named and all((ROOT / name).is_file() for name in named)


def test_links_within_the_page_and_files_exist():
    titles = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)\s]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (ROOT / target).is_file(), target
