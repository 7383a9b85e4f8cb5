#!/usr/bin/env bash
# Measure: bash scripts/benchmark.sh pretrain|data|rerank|caption [options, see --help]. Writes output/benchmark/{name}.json.
set -euo pipefail
case "${1:-}" in
  pretrain | data | rerank | caption) ;;
  *)
    echo "usage: bash scripts/benchmark.sh pretrain|data|rerank|caption [options, see --help]" >&2
    exit 2
    ;;
esac
BENCHMARK="$1"
shift
source "$(dirname "$0")/environment.sh" requirements.txt
export KINETO_LOG_LEVEL="${KINETO_LOG_LEVEL:-6}" # torch.profiler's own messages
export PYTHONSAFEPATH=1 PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$PY" -m "tests.benchmark.$BENCHMARK" "$@"
