"""The house rules that a reader relies on: which package imports which, what stays free of what, and --help."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "modules": {"modules"},
    "dataloaders": {"dataloaders", "modules"},
    "utils": {"utils", "dataloaders", "modules"},
    "tasks": {"tasks", "utils", "dataloaders", "modules"},
}
FILES = {package: sorted((ROOT / package).glob("**/*.py")) for package in MAY_IMPORT}
# They run beside TensorFlow, and TensorFlow and PyTorch in one process crash.
WITHOUT_TORCH = (
    "dataloaders.frames",
    "dataloaders.container_end",
    "dataloaders.tfrecord",
    "dataloaders.stored_frames",
    "dataloaders.files",
    "dataloaders.lmdb_files",
    "dataloaders.msrvtt",
    "dataloaders.msvd",
    "dataloaders.lsmdc",
    "dataloaders.didemo",
    "dataloaders.multiple_choice",
    "modules.boxes",
    "modules.tracking",
    "modules.utils_object_tractor",
    "utils.check_clips",
    "utils.check_records",
    "utils.clip_encoding",
    "utils.video_workers",
    "utils.webvid_rows",
    "utils.webvid_to_tfrecord",
)
COMMANDS = [
    path for package in ("utils", "tasks") for path in FILES[package] if '__name__ == "__main__"' in path.read_text()
]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            yield node.module or "", node


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_downwards_only(package: str):
    assert FILES[package]
    for path in FILES[package]:
        ours = {name.split(".")[0] for name, _ in imports(path)} & {*MAY_IMPORT, "tests"}
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {sorted(ours - MAY_IMPORT[package])}"


def test_commands_alone_edit_the_path_and_in_one_line_before_their_imports():
    line = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
    for path in [path for files in FILES.values() for path in files]:
        text = path.read_text(encoding="utf-8")
        ours = [node.lineno for name, node in imports(path) if name.split(".")[0] in MAY_IMPORT]
        needed = path in COMMANDS and bool(ours)
        assert text.count("sys.path") == text.count(line) == needed, path.relative_to(ROOT)
        if needed:
            assert text[: text.index(line)].count("\n") + 1 < min(ours), path.relative_to(ROOT)


def test_no_file_shadows_the_standard_library():
    """`python utils/x.py` puts utils/ first on the path."""
    names = {path.stem for package in ("utils", "tasks") for path in FILES[package]}
    assert not names & (set(sys.stdlib_module_names) - {"__init__"})


def test_tensorflow_is_imported_by_the_shard_writer_alone():
    users = {
        path.relative_to(ROOT).as_posix()
        for files in FILES.values()
        for path in files
        if any(name.split(".")[0] == "tensorflow" for name, _ in imports(path))
    }
    assert users == {"utils/webvid_to_tfrecord.py"}


def test_packages_are_empty_folders_of_files():
    for package in MAY_IMPORT:
        assert (ROOT / package / "__init__.py").read_text() == ""


def test_what_runs_beside_tensorflow_imports_no_torch():
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch or tensorflow was imported"


def test_library_functions_do_not_print():
    for path in [path for files in FILES.values() for path in files if path not in COMMANDS]:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        assert not {"print", "eval", "exec"} & set(names), path.relative_to(ROOT)


def test_every_command_explains_itself():
    """One process for all of them: what a command imports, the next one finds imported."""
    code = """
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            importlib.import_module(name).main(["--help"])
    except SystemExit as stop:
        assert stop.code in (None, 0), f"{name} --help: {stop.code}"
    assert text.getvalue().startswith("usage:"), name
"""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS]
    assert {"tasks.pre_training", "utils.webvid_to_tfrecord", "utils.make_demo_data"} <= set(names)
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_runs_as_a_file_from_anywhere(tmp_path: Path):
    command = [sys.executable, str(ROOT / "utils/tag_captions.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: tag_captions.py" in done.stdout, done.stderr
