#!/usr/bin/env bash
# Fine-tunes and scores BERT for named entity recognition; every flag is handed on, for example --do_train true.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
launch ner_log.txt models.bert.run_ner "$@"
