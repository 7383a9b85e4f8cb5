#!/usr/bin/env bash
# Run the tests: bash scripts/test.sh [pytest arguments]. Makes .venv when it is missing.
# A file or folder of tests is looked for where the script is called, else in the repository.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements-dev.txt
ARGUMENTS=()
for argument in "$@"; do
  case "$argument" in
    -* | /*) ;;
    *) [ . -ef "$ROOT" ] || [ ! -e "${argument%%::*}" ] || argument="$PWD/$argument" ;;
  esac
  ARGUMENTS+=("$argument")
done
cd "$ROOT"
exec "$PY" -m pytest ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
