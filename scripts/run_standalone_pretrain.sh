#!/usr/bin/env bash
# Pretrains ERNIE on one device, for example: 0 1 /path/cn-wiki-128; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pretrain.sh"
MODEL=ERNIE TRAINING=models.ernie.run_pretrain DEFAULTS=(--recipe pretrain_base)
standalone_pretrain CPU "$@"
