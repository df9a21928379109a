#!/usr/bin/env bash
# Pretrains BERT on many Ascend devices, for example: /path/cn-wiki-128 /path/hccl.json; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
ascend_pretrain "$@"
