#!/usr/bin/env bash
# Offline inference from data to scores: build the C++ program, preprocess, run it, postprocess.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_infer_310.sh [MINDIR_PATH] [DATA_FILE_PATH] [NEED_PREPROCESS] [DEVICE_TARGET] [DEVICE_ID]
                                     [OUTPUT_DIR]

  MINDIR_PATH      the exported model: its folder, or the .mindir with manifest.json and vocab.txt beside it
  DATA_FILE_PATH   question answering: SQuAD's JSON layout, for example dev-v1.1.json; classification and named
                   entities: features that data_tools.convert wrote, for example features/dev
  NEED_PREPROCESS  y: write the samples to ./preprocess_Result; n: they are there already
  DEVICE_TARGET    CPU (default) or Ascend
  DEVICE_ID        default 0
  OUTPUT_DIR       where everything is written; default: the current folder

Writes preprocess_Result/, result_Files/, time_Result/, eval.json, the predictions (predictions.json and
nbest_predictions.json, or predictions.jsonl), and the logs preprocess.log, infer.log and acc.log, which holds the scores.
The exit code is that of the step that failed; ascend310_infer/README.md lists those of the C++ program.
MS_LITE_HOME: see ascend310_infer/build.sh --help.
TEXT
}

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
  usage
  exit 0
fi
if [[ $# -lt 3 || $# -gt 6 ]]; then
  usage >&2
  exit 2
fi

fail() {
  echo "error: $*" >&2
  exit 2
}

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

[[ -e "$1" ]] || fail "$1: no such model"
[[ -e "$2" ]] || fail "$2: no such data"
[[ "$3" == y || "$3" == n ]] || fail "NEED_PREPROCESS must be y or n, got $3"
device="${4:-CPU}"
[[ "$device" == CPU || "$device" == Ascend ]] || fail "DEVICE_TARGET must be CPU or Ascend, got $device"
device_id="${5:-0}"
[[ "$device_id" =~ ^[0-9]+$ ]] || fail "DEVICE_ID must be a number, got $device_id"

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
model="$(realpath "$1")" data="$(realpath "$2")"
data_flag=--eval_data_file_path
[[ -d "$data" || "$data" != *.json ]] || data_flag=--eval_json_path
manifest="$model"
[[ -d "$model" ]] || manifest="$(dirname "$model")"
python="$project/.venv/bin/python"
[[ -x "$python" ]] || python="$(command -v "${PYTHON:-python3}")" || fail "no Python found; run scripts/setup.sh"
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"

output="${6:-.}"
mkdir -p "$output" && cd "$output" || fail "$output: no folder to write to"
# A score of a former run must not stand there after a failure.
rm -f acc.log eval.json predictions.json nbest_predictions.json predictions.jsonl
main="$(bash "$project/ascend310_infer/build.sh")"
# Commands of one family do for models of any: all that they need to know is in the manifest.
if [[ "$3" == y ]]; then
  step preprocess.log with_errors "$python" -m models.bert.preprocess --manifest "$manifest" \
    "$data_flag" "$data" --result_path preprocess_Result
fi
step infer.log with_errors "$main" --mindir_path "$model" --input_dir preprocess_Result --output_dir . \
  --device_type "$device" --device_id "$device_id"
step acc.log "$python" -m models.bert.postprocess --manifest "$manifest" "$data_flag" "$data" \
  --preprocess_path preprocess_Result --result_path result_Files --output_dir .
