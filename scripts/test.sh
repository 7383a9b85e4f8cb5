#!/usr/bin/env bash
# Run the tests: bash scripts/test.sh [pytest arguments]. Makes .venv when it is missing.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements-dev.txt
exec "$PY" -m pytest "$@"
