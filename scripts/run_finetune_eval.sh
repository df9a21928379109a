#!/usr/bin/env bash
# Scores a fine-tuned ERNIE on the test data of its task, for example: msra_ner; more with --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/run_finetune_eval.sh TASK_TYPE [--run_dir DIR] [--print] [FLAGS...]

Scores the weights of a run of run_standalone_finetune.sh or run_distribute_finetune.sh with the settings of that run: the
best ones, or those it ended with where it scored none. Scores and predictions go to DIR/test, or DIR/dev for cmrc, whose
test set was never published; the log is ms_log/TASK_TYPE_eval_log.txt.
TEXT
  usage_tasks
  cat <<'TEXT'
  --run_dir        the run folder; default: save_models/TASK_TYPE
  FLAGS            further flags of the task's command, which --help behind a TASK_TYPE shows; of one given twice the last
                   counts. Given already: features data/FOLDER/TASK_TYPE_test
TEXT
  usage_foreground
  usage_command
}

split "$@"
take_flags run_dir print "${flags[@]}"
expect 1
choose_task "${places[0]}"
run_dir="${run_dir:-save_models/$task}"
weights="$run_dir/best"
[[ -d "$weights" || ! -d "$run_dir/last" ]] || weights="$run_dir/last"
if [[ -z "$print" && ! ( -f "$run_dir/config.yaml" && -d "$weights" ) ]]; then
  fail "$run_dir: no finished run; bash scripts/run_standalone_finetune.sh $task makes it, or give --run_dir"
fi
evaluation_data "$scored"
prepare CPU 1
run "ms_log/${task}_eval_log.txt" "$python" -m "$module" --config_path "$run_dir/config.yaml" --do_train false \
  --do_eval true --distribute false --device_num 1 --load_finetune_checkpoint_path "$weights" "${evaluated[@]}" \
  --save_finetune_checkpoint_path "$run_dir/$scored" "${others[@]}"
