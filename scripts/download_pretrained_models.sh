#!/usr/bin/env bash
# Downloads and unpacks the pretrained weights that the originals start from; without arguments ERNIE 1.0.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
find_python
for argument in "$@"; do
  if [[ "$argument" == --help || "$argument" == -h ]]; then
    echo "usage: bash scripts/download_pretrained_models.sh [NAME] [FLAGS...]   the flags are those of:"
    echo
  fi
done
exec "$python" -m data_tools.pretrained "$@"
