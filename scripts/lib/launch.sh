# Sourced by the launchers: one command of the project in the foreground, its output on the terminal and in a log.

# find_python: the project's folder and its Python, into `project` and `python`; what it runs finds the project's packages
find_python() {
  project="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
  python="$project/.venv/bin/python"
  if [[ ! -x "$python" ]]; then
    python="$(command -v "${PYTHON:-python3}")" || { echo "error: no Python found; run scripts/setup.sh" >&2; exit 2; }
  fi
  export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
}

# launch LOG MODULE ARGUMENTS...: runs `python -m MODULE ARGUMENTS...` in the caller's folder and exits with its code.
launch() {
  local log="$1" module="$2" project python given=()
  shift 2
  find_python
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
  for argument in "$@"; do
    if [[ "$argument" == --help || "$argument" == -h ]]; then
      echo "usage: bash scripts/$(basename "$0") FLAGS...   writes $log; the flags are those of $module:"
      if ((${#given[@]})); then echo "(given already; the last one wins: ${given[*]})"; fi
      echo
      exec "$python" -m "$module" --help
    fi
    given+=("$argument")
  done
  logged "$module" "$log" "$python" -m "$module" "$@"
}

# become MODULE USAGE ARGUMENTS...: `python -m MODULE ARGUMENTS...` in place of this script; USAGE opens its --help
become() {
  local module="$1" usage="$2" argument
  shift 2
  find_python
  for argument in "$@"; do
    if [[ "$argument" == --help || "$argument" == -h ]]; then
      echo "usage: bash scripts/$(basename "$0") $usage   the flags are those of:"
      echo
    fi
  done
  exec "$python" -m "$module" "$@"
}

# logged NAME LOG COMMAND...: runs the command, its output on the terminal and in LOG, and exits with its code
logged() {
  local name="$1" log="$2" code=0
  shift 2
  # The pipe must not hide the command's exit code behind that of tee.
  "$@" 2>&1 | tee "$log" || code="${PIPESTATUS[0]}"
  if ((code != 0)); then
    echo "error: $name failed with exit code $code, see $log" >&2
  fi
  exit "$code"
}
