#!/usr/bin/env bash
# Downloads and unpacks the pretrained weights that the originals start from; without arguments ERNIE 1.0.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
become data_tools.pretrained "[NAME] [FLAGS...]" "$@"
