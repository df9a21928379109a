#!/usr/bin/env bash
# Set up and run all tests: python, C++ and the checks of style. Arguments go to pytest: scripts/test.sh tests/unit -k packing
set -euo pipefail

if [[ "${1:-}" == "--help" ]]; then
  echo "usage: bash scripts/test.sh [PYTEST ARGUMENTS]   (default: all tests)"
  exit 0
fi

cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
make_environment test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# A process for each core, but no more than memory allows everywhere, and one thread each. The tests of a file share what
# they set up, so they stay together.
workers=$(($(nproc) < 4 ? $(nproc) : 4))
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest --numprocesses "$workers" --dist loadfile --no-loadscope-reorder "$@"
