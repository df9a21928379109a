#!/usr/bin/env bash
# Converts Baidu's data of one of ERNIE's tasks, for example: data/task_data/msra_ner data/msra_ner msra_ner.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/ernie.sh"

usage() {
  cat <<'TEXT'
usage: bash scripts/convert_finetune_datasets.sh DATASET_PATH OUTPUT_PATH TASK_TYPE [--print] [FLAGS...]

Makes features of train, dev and test: OUTPUT_PATH/TASK_TYPE_train and so on; a part that is not there is skipped.
  DATASET_PATH     the task's folder in Baidu's task_data, with train.tsv (or .json), dev.tsv, test.tsv
TEXT
  usage_tasks
  cat <<TEXT
  --print          print what would be run, and run nothing
  FLAGS            further flags of python -m data_tools.convert, which --help behind a TASK_TYPE shows; of one given twice
                   the last counts. Given already: --vocab_file $WEIGHTS/vocab.txt,
                   and lengths as the original has them
The output is shown and written to convert_finetune_log.txt.
TEXT
  usage_command data_tools.convert
}

# parts: the parts that are there; says which are not
parts() {
  local part
  for part in train dev test; do
    if [[ -f "$dataset/$part.$suffix" ]]; then
      echo "$part"
    else
      echo "$dataset/$part.$suffix: not there, skipped" >&2
    fi
  done
}

# command_of PART: into `command`
command_of() {
  command=(
    "$python" -m data_tools.convert "${conversion[@]}" --input_file "$dataset/$1.$suffix"
    --output_dir "$output/${task}_$1" --vocab_file "$WEIGHTS/vocab.txt" --max_seq_length "$length"
  )
  case "$head $1" in
    ner*) command+=(--label_file_path "$dataset/label_map.json") ;;
    "squad train") command+=(--is_training true --skip_misaligned true) ;;
    squad*) command+=(--is_training false) ;;
  esac
  command+=("${others[@]}")
}

convert() {
  local part
  for part in $found; do
    command_of "$part"
    "${command[@]}" || return
  done
}

split "$@"
take_flags "" print "${flags[@]}"
expect 3
choose_task "${places[2]}"
dataset="${places[0]}" output="${places[1]}"
[[ -d "$dataset" ]] || fail "$dataset: no such folder; scripts/download_datasets.sh finetune makes $TASK_DATA/$folder"
found="$(parts)"
[[ -n "$found" ]] || fail "$dataset: no train.$suffix, dev.$suffix or test.$suffix"
find_python
if [[ -z "$print" ]]; then
  logged data_tools.convert convert_finetune_log.txt convert
fi
for part in $found; do
  command_of "$part"
  quoted "${command[@]}"
done
