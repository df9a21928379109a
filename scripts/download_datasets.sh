#!/usr/bin/env bash
# Downloads ERNIE's data sets and unpacks them, for example: finetune.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
become data_tools.datasets_zh "pretrain|finetune [FLAGS...]" "$@"
