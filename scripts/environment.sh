# Sourced by the other scripts: a virtual environment with what requirements.txt names, made when it is missing.
# Usage: source scripts/environment.sh [requirements file]; afterwards "$PY" is its Python and "$ROOT" the repository.
# VENV and PYTHON, where they are relative paths, mean the folder in which the script is called.
ROOT="$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
PY="$VENV/bin/python"
REQUIREMENTS="${1:-requirements.txt}"

# Both run in the repository: Python imports what lies in the folder it is called in.
make_environment() (
  python="${PYTHON:-python3}" stamp="$VENV/.installed-$(basename "$REQUIREMENTS" .txt)"
  case "$python" in /*) ;; */*) python="$PWD/$python" ;; esac
  cd "$ROOT"
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
    echo "Python 3.10 to 3.13 is needed, '$python' is $("$python" --version 2>&1). Name another one: PYTHON=python3.11 bash $0" >&2
    return 1
  fi
  # The stamp holds the requirements that were installed: a changed file is installed again, an unchanged one is not.
  if [ -x "$PY" ] && cat requirements.txt requirements-optional.txt "$REQUIREMENTS" | cmp -s - "$stamp"; then
    return 0
  fi
  if [ ! -x "$PY" ]; then
    echo "making $VENV"
    "$python" -m venv "$VENV" || {
      echo "could not make a virtual environment; on Debian: apt-get install python3-venv" >&2
      return 1
    }
  fi
  echo "installing $REQUIREMENTS into $VENV (some minutes and 8 GB the first time)"
  "$PY" -m pip install --quiet --disable-pip-version-check -r "$REQUIREMENTS" || return 1
  cat requirements.txt requirements-optional.txt "$REQUIREMENTS" > "$stamp"
)

check_imports() (
  cd "$ROOT"
  "$PY" - <<'PYTHON'
import importlib
import sys

LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0", "libglib-2.0.so.0": "libglib2.0-0",
             "libSM.so.6": "libsm6", "libXext.so.6": "libxext6", "libgomp.so.1": "libgomp1"}
for name in ("cv2", "torch", "torchvision", "scipy", "pandas", "jinja2", "lmdb", "ftfy", "regex", "tqdm", "HanTa", "crc32c",
             "safetensors", "tensorboardX", "matplotlib"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        package = next((p for library, p in LIBRARIES.items() if library in str(error)), None)
        remedy = f"on Debian or Ubuntu: apt-get install {package}" if package else "delete .venv and run this again"
        sys.exit(f"cannot import {name}: {error}\n{remedy}")
PYTHON
)

make_environment && check_imports || exit 1
