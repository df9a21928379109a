#!/usr/bin/env bash
# Fine-tunes ERNIE for one task on one device, for example: msra_ner; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/run_standalone_finetune.sh TASK_TYPE [--print] [FLAGS...]

Fine-tunes ERNIE, and scores it on dev after each epoch; the log is ms_log/TASK_TYPE_train_log.txt. The same command goes
on where a run stopped.
TEXT
  usage_tasks
  usage_defaults
  usage_foreground
  usage_command
}

split "$@"
take_flags "" print "${flags[@]}"
expect 1
choose_task "${places[0]}"
training_of_task
prepare CPU 1
run "ms_log/${task}_train_log.txt" "$python" -m "$module" "${training[@]}" "${others[@]}"
