#!/usr/bin/env bash
# Fine-tunes with several workers, for example: rank_table.json xnli, or 2 xnli; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/run_distribute_finetune.sh RANK_TABLE_FILE TASK_TYPE|MODULE [--print] [LAUNCHER FLAGS...] [FLAGS...]
       bash scripts/run_distribute_finetune.sh DEVICE_NUM TASK_TYPE|MODULE [--print] [MSRUN FLAGS...] [FLAGS...]

Fine-tunes on many devices: their steps are those of one device, whose rows they share, and all of them evaluate. A
TASK_TYPE stands for ERNIE's training of run_standalone_finetune.sh, a MODULE for a command of which FLAGS say all.
TEXT
  usage_tasks
  cat <<'TEXT'
  MODULE           models.ernie.run_classifier, run_ner or run_mrc; models.bert.run_classifier, run_ner or run_squad
  FLAGS            further flags of the command, which --help behind a TASK_TYPE or MODULE shows; of one given twice the
                   last counts. --distribute true is given already
  RANK_TABLE_FILE  of Ascend devices: this machine's ranks, a process each, whose output is added to
                   LOG<device id>/finetune_log.txt; start it on every machine of the table
TEXT
  usage_table_flags
  cat <<'TEXT'
  DEVICE_NUM       devices of this machine, with MindSpore's msrun; --device_target says which, the default is CPU
TEXT
  usage_msrun_flags finetune_log.txt
  usage_foreground
  if [[ "${places[1]:-}" == models.* ]]; then
    find_python
    echo
    "$python" -m "${places[1]}" --help
  else
    usage_command
  fi
}

split "$@"
if [[ "${places[0]:-}" =~ ^[0-9]*$ ]]; then
  take_flags "$MSRUN_FLAGS" print "${flags[@]}"
else
  take_flags "$TABLE_FLAGS" print "${flags[@]}"
fi
expect 2
first="${places[0]}" training=()
if [[ "${places[1]}" == models.* ]]; then
  module="${places[1]}"
  [[ "$module" =~ ^models\.(bert\.run_(classifier|ner|squad)|ernie\.run_(classifier|ner|mrc))$ ]] ||
    fail "$module: no module that fine-tunes"
else
  choose_task "${places[1]}"
  training_of_task
fi
if [[ ! "$first" =~ ^[0-9]*$ ]]; then
  [[ -f "$first" ]] || fail "$first: no such rank table; python -m models.common.launch.rank_table makes it"
  prepare Ascend
  start_ranks "$first" finetune_log.txt "$project/${module//.//}.py" -- --device_target Ascend "${training[@]}" \
    "${others[@]}"
fi
check_cluster "$first"
[[ " ${others[*]} " == *" --device_target Ascend "* ]] && target=Ascend || target=CPU
prepare "$target" "$first"
start_workers "$first" finetune_log.txt "$module" --distribute true "${training[@]}" "${others[@]}"
