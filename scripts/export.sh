#!/usr/bin/env bash
# Exports a fine-tuned ERNIE for offline inference, for example: save_models/msra_ner export/msra_ner msra_ner.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/export.sh CKPT_FILE EXPORT_PATH TASK_TYPE [--print] [FLAGS...]

Writes EXPORT_PATH/TASK_TYPE.mindir, with manifest.json and vocab.txt beside it, for scripts/run_infer_310.sh, and compares
it with the network; the log is ms_log/TASK_TYPE_export_log.txt.
  CKPT_FILE        a run folder, such as save_models/msra_ner, or weights of any format; those of no run get the lengths of
                   the task, and need --label_file_path where nothing names their labels
TEXT
  usage_tasks
  cat <<'TEXT'
  FLAGS            further flags of python -m models.ernie.export, which --help behind a TASK_TYPE shows; of one given twice
                   the last counts. Given already: --file_format MINDIR_LITE, for the C++ program
TEXT
  usage_foreground
  usage_command models.ernie.export
}

# belongs_to_a_run WEIGHTS: a run's folder, or what lies in it or one folder below
belongs_to_a_run() {
  local above="$1" level
  for level in 1 2 3; do
    [[ ! -f "$above/config.yaml" ]] || return 0
    above="$(dirname "$above")"
  done
  return 1
}

split "$@"
take_flags "" print "${flags[@]}"
expect 3
choose_task "${places[2]}"
weights="${places[0]}" settings=()
[[ -e "$weights" || -n "$print" ]] || fail "$weights: no such weights"
if ! belongs_to_a_run "$(realpath -m "$weights")"; then
  settings=(--max_seq_length "$length" "${windows[@]}")
  # As the recipes of these tasks.
  [[ "$head" != squad ]] || settings+=(--max_answer_length 100 --assessment_method cmrc)
fi
prepare CPU 1
run "ms_log/${task}_export_log.txt" "$python" -m models.ernie.export --export_ckpt_file "$weights" \
  --export_file_name "${places[1]}/$task" --task "$head" --file_format MINDIR_LITE "${settings[@]}" "${others[@]}"
