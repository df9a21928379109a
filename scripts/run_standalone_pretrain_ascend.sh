#!/usr/bin/env bash
# Pretrains BERT on one Ascend device, for example: 0 40 /path/cn-wiki-128; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
standalone_pretrain Ascend "$@"
