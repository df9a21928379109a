#!/usr/bin/env bash
# Pretrains BERT on one GPU, for example: 0 40 /path/cn-wiki-128; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
standalone_pretrain GPU "$@"
