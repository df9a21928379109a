#!/usr/bin/env bash
# Fine-tunes ERNIE for one task on many devices, for example: rank_table.json xnli; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/run_distribute_finetune.sh RANK_TABLE_FILE TASK_TYPE [--print] [FLAGS...]
       bash scripts/run_distribute_finetune.sh TASK_TYPE --device_num N [--device_target CPU|GPU|Ascend] [--print] [FLAGS...]

Fine-tunes ERNIE as run_standalone_finetune.sh does, on the devices of a rank table (Ascend), or on N of this machine with
MindSpore's msrun. It is run_distributed_finetune.sh, whose flags it takes and whose --help says more, for one of the tasks.
TEXT
  usage_tasks
  usage_defaults
  usage_foreground
  usage_command
}

split "$@"
take_flags "device_num device_target" "" "${flags[@]}"
expect 1 2
if ((${#places[@]} == 2)); then
  [[ -z "$device_num$device_target" ]] || fail "--device_num and --device_target go without a rank table, which has both"
  [[ -f "${places[0]}" ]] || fail "${places[0]}: no such rank table; python -m models.common.launch.rank_table makes it"
  first="${places[0]}" target=()
else
  [[ -n "$device_num" ]] || fail "give a rank table before TASK_TYPE, or --device_num N"
  number --device_num "$device_num"
  first="$device_num" target=(--device_target "${device_target:-CPU}")
fi
choose_task "${places[-1]}"
training_of_task
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_distributed_finetune.sh" "$first" "$module" "${target[@]}" \
  "${training[@]}" "${others[@]}"
