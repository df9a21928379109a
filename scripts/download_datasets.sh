#!/usr/bin/env bash
# Downloads ERNIE's data sets and unpacks them, for example: finetune.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
find_python
for argument in "$@"; do
  if [[ "$argument" == --help || "$argument" == -h ]]; then
    echo "usage: bash scripts/download_datasets.sh pretrain|finetune [FLAGS...]   the flags are those of:"
    echo
  fi
done
exec "$python" -m data_tools.datasets_zh "$@"
