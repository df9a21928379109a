#!/usr/bin/env bash
# Fine-tunes with several workers, for example: 8 models.ernie.run_classifier --recipe xnli ...; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/workers.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/run_distributed_finetune.sh DEVICE_NUM MODULE [--print] [MSRUN FLAGS...] [FLAGS...]
       bash scripts/run_distributed_finetune.sh RANK_TABLE_FILE MODULE [--print] [LAUNCHER FLAGS...] [FLAGS...]

Fine-tunes on many devices: their steps are those of one device, whose rows they share, and all of them evaluate.
  MODULE           models.ernie.run_classifier, run_ner or run_mrc; models.bert.run_classifier, run_ner or run_squad
  FLAGS            those of python -m MODULE, which --help behind a MODULE shows; --distribute true is added
  RANK_TABLE_FILE  of Ascend devices: this machine's ranks, a process each, whose output is added to
                   LOG<device id>/finetune_log.txt; start it on every machine of the table
TEXT
  usage_table_flags
  cat <<'TEXT'
  DEVICE_NUM       devices of this machine, with MindSpore's msrun
TEXT
  usage_msrun_flags finetune_log.txt
  usage_foreground
  if ((${#places[@]} == 2)); then
    find_python
    echo
    "$python" -m "${places[1]}" --help
  fi
}

split "$@"
if [[ "${places[0]:-}" =~ ^[0-9]*$ ]]; then
  take_flags "$MSRUN_FLAGS" print "${flags[@]}"
else
  take_flags "$TABLE_FLAGS" print "${flags[@]}"
fi
expect 2
first="${places[0]}" module="${places[1]}"
[[ "$module" =~ ^models\.(bert|ernie)\.run_(classifier|ner|squad|mrc)$ ]] || fail "$module: no module that fine-tunes"
if [[ ! "$first" =~ ^[0-9]*$ ]]; then
  prepare Ascend
  start_ranks "$first" finetune_log.txt "$project/${module//.//}.py" -- --device_target Ascend "${others[@]}"
fi
check_cluster "$first"
[[ " ${others[*]} " == *" --device_target Ascend "* ]] && target=Ascend || target=CPU
prepare "$target" "$first"
start_workers "$first" finetune_log.txt "$module" --distribute true "${others[@]}"
