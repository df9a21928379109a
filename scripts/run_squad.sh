#!/usr/bin/env bash
# Fine-tunes and scores BERT for question answering; every flag is handed on, for example --do_train true.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
launch squad_log.txt models.bert.run_squad "$@"
