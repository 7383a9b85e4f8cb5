# Sourced by the scripts of the tasks: how a task is started. From the environment:
#   PYTHON      its interpreter                 (default: .venv/bin/python where it is, else python3)
#   NPROC       processes on this machine       (default: 1)
#   MASTER_PORT port of the process group       (default: a free one)
ROOT="$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONSAFEPATH=1 # nothing that lies in the folder of the call is imported
PYTHON="${PYTHON:-$([ -x "$ROOT/.venv/bin/python" ] && echo "$ROOT/.venv/bin/python" || echo python3)}"

launch() { # task, flags...
  local task="$1" rendezvous=(--standalone)
  shift
  [ -z "${MASTER_PORT:-}" ] || rendezvous=(--master_port "$MASTER_PORT")
  exec "$PYTHON" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node "${NPROC:-1}" "$ROOT/tasks/$task.py" "$@"
}
