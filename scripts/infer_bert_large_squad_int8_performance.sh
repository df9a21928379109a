#!/usr/bin/env bash
# BERT-Large on SQuAD v1.1 in 8 bits: at least 200 samples/s by the original's formula, its target for an MR-V100.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/bert_large_squad.sh"
infer int8 --min_qps 200 "$@"
