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
exec .venv/bin/python -m pytest "$@"
