#!/usr/bin/env bash
# Scores a pretrained checkpoint on a GPU; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
evaluate_pretrained GPU "$@"
