"""Every document: its commands exist and know the flags that they are given, its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("modules", "dataloaders", "tasks", "utils", "tests", "data")
DOCUMENTS = ["README.md", *(f"{folder}/README.md" for folder in FOLDERS)]
WITH_CONTENTS = [f"{folder}/README.md" for folder in FOLDERS if folder != "data"]
SCRIPT = re.compile(r"(\./)?(utils|tasks)/\w+\.py")
SUBCOMMANDS = {"tasks/predict.py"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[list[str]]:
    """Words of every command of a document's bash blocks, without variables that are set before it and comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", read(name), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [
        line[next(i for i, word in enumerate(line) if "=" not in word) :]
        for line in words
        if not all("=" in word for word in line)
    ]


def python_commands() -> list[list[str]]:
    """Script and arguments of all commands that run a file of this repository, each once."""
    found: dict[tuple[str, ...], None] = {}
    for words in (words for name in DOCUMENTS for words in commands(name)):
        place = next((i for i, word in enumerate(words) if SCRIPT.fullmatch(word)), None)
        if place is not None:
            found[(words[place].removeprefix("./"), *words[place + 1 :])] = None
    return [list(words) for words in found]


def test_the_documents_have_the_commands_of_every_part():
    scripts = {words[0] for words in python_commands()}
    assert {f"tasks/{name}.py" for name in ("pre_training", "predict", "eval_captioning")} <= scripts
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "utils").glob("*.py")} - scripts <= {
        "utils/__init__.py",
        "utils/predictor.py",
    }


@pytest.mark.parametrize("words", python_commands(), ids=lambda words: " ".join(words)[:60])
def test_commands_know_their_flags(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert (ROOT / words[0]).is_file()
    module = importlib.import_module(words[0].removesuffix(".py").replace("/", "."))
    with pytest.raises(SystemExit) as ended:
        module.main([*(words[1:2] if words[0] in SUBCOMMANDS else []), "--help"])
    assert ended.value.code == 0
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    flags = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
    assert flags <= known


def test_scripts_that_are_named_exist():
    named = {word for name in DOCUMENTS for words in commands(name) for word in words if word.startswith("scripts/")}
    assert named and all((ROOT / name).is_file() for name in named)


def test_modules_that_are_run_exist():
    found = {words[words.index("-m") + 1] for name in DOCUMENTS for words in commands(name) if "-m" in words[:3]}
    for module in found - {"pytest", "torch.distributed.launch", "torch.distributed.run"}:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


def anchors(name: str) -> set[str]:
    """Names that links to a document's headings have."""
    text = re.sub(r"^```.*?^```", "", read(name), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_headings_and_files(name: str):
    text = read(name)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, flags=re.MULTILINE)
    for target in targets:
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_that_are_named_exist(name: str):
    """Files of this repository in backticks, from its root or from the document's folder."""
    found = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|sh|md|jinja|toml|txt))`", read(name))
    for path in found:
        assert (ROOT / path).exists() or (ROOT / name).parent.joinpath(path).exists(), path


@pytest.mark.parametrize("name", WITH_CONTENTS)
def test_a_rooms_document_has_a_table_of_contents(name: str):
    text = read(name)
    sections = re.findall(r"^## (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.MULTILINE)
    head = text.split("\n## ")[0]
    missing = [title for title in sections if f"[{title}](#" not in head]
    assert sections and not missing


def test_the_first_document_is_short():
    text = read("README.md")
    assert text.count("\n") <= 160 and len(text.encode()) <= 12_000
    assert max(map(len, text.splitlines())) < 120
