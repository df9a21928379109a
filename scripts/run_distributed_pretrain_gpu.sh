#!/usr/bin/env bash
# Pretrains BERT on many GPUs, for example: 8 40 /path/cn-wiki-128; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
distributed_pretrain GPU "$@"
