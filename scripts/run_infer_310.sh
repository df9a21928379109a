#!/usr/bin/env bash
# Offline inference from data to scores: build the C++ program, preprocess, run it, postprocess.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_infer_310.sh [MINDIR_PATH] [DATA_FILE_PATH] [NEED_PREPROCESS] [DEVICE_TARGET] [DEVICE_ID]
                                     [OUTPUT_DIR]
       bash scripts/run_infer_310.sh [MINDIR_PATH] [LABEL_PATH] [DATA_FILE_PATH] [DATASET_FORMAT] [SCHEMA_PATH] [USE_CRF]
                                     [NEED_PREPROCESS] [DEVICE_ID] [--device_target TARGET] [--output_dir DIR]

  MINDIR_PATH      the exported model: its folder, or the .mindir with manifest.json and vocab.txt beside it
  DATA_FILE_PATH   question answering: SQuAD's JSON layout, for example dev-v1.1.json; classification and named
                   entities: features that data_tools.convert wrote, for example features/dev
  NEED_PREPROCESS  y: write the samples to ./preprocess_Result; n: they are there already
  DEVICE_TARGET    CPU (default) or Ascend
  DEVICE_ID        default 0
  OUTPUT_DIR       where everything is written; default: the current folder

Three to six arguments are the original BERT's, seven or eight are ERNIE's. Of these, '' stands for none. The manifest says
all about the model itself; what is told here is compared with it, and refused where it says otherwise:
  LABEL_PATH       the labels in the order of their ids, for example label_map.json; '' compares nothing
  DATASET_FORMAT   mindrecord, tfrecord or numpy; json of questions
  SCHEMA_PATH      the JSON schema of TFRecord features made elsewhere, else ''
  USE_CRF          true or false

Writes preprocess_Result/, result_Files/, time_Result/, eval.json, the predictions (predictions.json and
nbest_predictions.json, or predictions.jsonl), and the logs preprocess.log, infer.log and acc.log, which holds the scores.
The exit code is that of the step that failed; ascend310_infer/README.md lists those of the C++ program.
MS_LITE_HOME: see ascend310_infer/build.sh --help.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/flags.sh"
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

# step LOG COMMAND...: standard output goes to the terminal and to LOG; when the command fails, so does the script,
# with the command's exit code and not with that of tee.
step() {
  local log="$1" code=0
  shift
  "$@" | tee "$log" || code=$?
  if ((code != 0)); then
    echo "error: step failed with exit code $code, see $log" >&2
    exit "$code"
  fi
}

with_errors() {
  "$@" 2>&1
}

# compare: what ERNIE's arguments say of the model
compare() {
  local flags=(--manifest "$manifest" --use_crf "$crf")
  [[ -z "$labels" ]] || flags+=(--label_file_path "$labels")
  "$python" -m models.common.finetune.stated "${flags[@]}"
}

take_flags "device_target output_dir" "" "$@"
set -- "${others[@]}"
labels="" format="" schema="" crf=""
case $# in
  [3-6])
    [[ -z "$device_target$output_dir" ]] || fail "--device_target and --output_dir are arguments 4 and 6 here"
    model="$1" data="$2" need="$3" device="${4:-CPU}" device_id="${5:-0}" output="${6:-.}"
    ;;
  [78])
    model="$1" labels="$2" data="$3" format="${4,,}" schema="$5" crf="${6,,}" need="$7" device_id="${8:-0}"
    device="${device_target:-CPU}" output="${output_dir:-.}"
    [[ "$crf" == true || "$crf" == false ]] || fail "USE_CRF must be true or false, got $6"
    [[ " mindrecord tfrecord numpy json " == *" $format "* ]] ||
      fail "DATASET_FORMAT must be mindrecord, tfrecord, numpy or json, got $4"
    [[ -z "$labels" || -e "$labels" ]] || fail "$labels: no such labels"
    [[ -z "$schema" || "$format" == tfrecord ]] || fail "SCHEMA_PATH is for tfrecord alone; give ''"
    [[ -z "$schema" || -f "$schema" ]] || fail "$schema: no such schema"
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
[[ -e "$model" ]] || fail "$model: no such model"
[[ -e "$data" ]] || fail "$data: no such data"
[[ "$need" == y || "$need" == n ]] || fail "NEED_PREPROCESS must be y or n, got $need"
[[ "$device" == CPU || "$device" == Ascend ]] || fail "DEVICE_TARGET must be CPU or Ascend, got $device"
[[ "$device_id" =~ ^[0-9]+$ ]] || fail "DEVICE_ID must be a number, got $device_id"
model="$(realpath "$model")" data="$(realpath "$data")"
if [[ -f "$data" && "$data" == *.json ]]; then
  data_flags=(--eval_json_path "$data")
  [[ -z "$format" || "$format" == json ]] || fail "$data: is no $format"
else
  [[ "$format" != json ]] || fail "$data: is no JSON file"
  data_flags=(--eval_data_file_path "$data" ${format:+--dataset_format "$format"})
fi
[[ -z "$schema" ]] || data_flags+=(--schema_file_path "$(realpath "$schema")")
manifest="$model"
[[ -d "$model" ]] || manifest="$(dirname "$model")"
find_python
[[ -z "$crf" ]] || compare

mkdir -p "$output" && cd "$output" || fail "$output: no folder to write to"
# A score of a former run must not stand there after a failure.
rm -f acc.log eval.json predictions.json nbest_predictions.json predictions.jsonl
main="$(bash "$project/ascend310_infer/build.sh")"
# Commands of one family do for models of any: all that they need to know is in the manifest.
if [[ "$need" == y ]]; then
  step preprocess.log with_errors "$python" -m models.bert.preprocess --manifest "$manifest" \
    "${data_flags[@]}" --result_path preprocess_Result
fi
step infer.log with_errors "$main" --mindir_path "$model" --input_dir preprocess_Result --output_dir . \
  --device_type "$device" --device_id "$device_id"
step acc.log "$python" -m models.bert.postprocess --manifest "$manifest" "${data_flags[@]}" \
  --preprocess_path preprocess_Result --result_path result_Files --output_dir .
