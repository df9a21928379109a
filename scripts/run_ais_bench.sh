#!/usr/bin/env bash
# Ascend's OM models on data, or for speed alone: the ais_bench command lines of the original README, for every length and
# batch of its tables.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_ais_bench.sh [--model_size base,large] [--seq 64,128,...] [--batch_size 1,4,...]
                                     [--unpad | --speed] [--print]

In the current folder: om/ of run_atc.sh, prep_data/bert_SIZE_seqSEQ/ of models.bert.bert_process (padded to SEQ) ->
result/bert_SIZE_seqSEQ/result_bsBATCH/
  --model_size, --seq, --batch_size  some of the tables', parted by commas; default: all of
                                     base,large, 64,128,256,320,384,512 and 1,4,8,16,32,64
  --unpad  the dynamic models -> result_unpad/bert_SIZE_seqSEQ/result_bsBATCH/; --seq 384,512, --batch_size 4,8,16,32,64.
           The README gives --dymShape 32,384 whatever the batch and the length; here they are those of the table
  --speed  no data, 50 loops (static models)
  --print  print the command lines and run nothing; neither tools nor files are needed
The README puts the results of all sizes and lengths into one folder, where the next run writes over them; here each has
its own. Needs `python3 -m ais_bench`.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/ascend.sh"

# result_of SIZE SEQ: where the results of all batch sizes go
result_of() { echo "result${unpad:+_unpad}/bert_$1_seq$2"; }

# bench_line SIZE SEQ BATCH: the command, into the array `command`
bench_line() {
  local data="prep_data/bert_$1_seq$2" shape="$3,$2"
  command=(python3 -m ais_bench --model="$(om_file_of "$@")")
  if [[ -n "$speed" ]]; then
    command+=(--loop=50 --batchsize="$3")
    return
  fi
  [[ -n "$unpad" ]] || command+=(--batchsize="$3")
  command+=(
    --input "$data/input_ids,$data/attention_mask,$data/token_type_ids"
    --output "$(result_of "$@")" --output_dirname "result_bs$3" --outfmt NPY
  )
  if [[ -n "$unpad" ]]; then
    command+=(--dymShape "input_ids:$shape;attention_mask:$shape;token_type_ids:$shape" --outputSize 1000000,1000000)
  fi
}

print_line() {
  bench_line "$@"
  show "${command[@]}"
}

check() {
  local om data="prep_data/bert_$1_seq$2" result which
  om="$(om_file_of "$@")" result="$(result_of "$@")/result_bs$3"
  if [[ ! -f "$om" ]]; then
    which="--batch_size $3"
    [[ -z "$unpad" ]] || which=--unpad
    missing "$om" "bash scripts/run_atc.sh --model_size $1 --seq $2 $which"
  fi
  [[ -z "$speed" ]] || return 0
  if [[ ! -d "$data/input_ids" || ! -d "$data/attention_mask" || ! -d "$data/token_type_ids" ]]; then
    missing "$data" "python -m models.bert.bert_process --model_path exports/bert_$1_seq$2 --process_mode preprocess \
--eval_json_path dev-v1.1.json --save_dir $data --pad_to_max_length"
  fi
  [[ ! -e "$result" ]] || fail "$result: holds results of a former run, which would be mixed with new ones; remove it"
}

measure() {
  bench_line "$@"
  [[ -n "$speed" ]] || mkdir -p "$(result_of "$@")"
  run "${command[@]}"
}

parse_flags "model_size seq batch_size" "unpad speed print" "$@"
[[ -z "$unpad" || -z "$speed" ]] || fail "--speed is for static models: without data nothing says how long the samples are"
choose
if [[ -n "$print" ]]; then
  each print_line
  exit
fi
python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("ais_bench") is None)' 2>/dev/null ||
  fail "python3 has no ais_bench; install it (https://gitee.com/ascend/tools, ais-bench_workload/tool/ais_bench), or --print"
each check
stop_if_missing
each measure
