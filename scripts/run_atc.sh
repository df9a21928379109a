#!/usr/bin/env bash
# ONNX graphs to Ascend's OM: the ATC command lines of the original README, for every length and batch of its tables.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_atc.sh [--model_size base,large] [--seq 64,128,...] [--batch_size 1,4,...] [--unpad]
                               [--chip NAME] [--rebuild] [--print]

In the current folder: onnx/bert_SIZE_seqSEQ_bsBATCH_fix.onnx -> om/bert_SIZE_seqSEQ_bsBATCH.om
  --model_size, --seq, --batch_size  some of the tables', parted by commas; default: all of
                                     base,large, 64,128,256,320,384,512 and 1,4,8,16,32,64
  --unpad    the dynamic models, --seq 384,512 and any batch: onnx/bert_SIZE_unpad.onnx -> om/bert_SIZE_unpad_OS_ARCH.om.
             The README has the line for 384 alone, its tables have 512 too: om/bert_SIZE_unpad_seq512_OS_ARCH.om
  --chip     the device's name in `npu-smi info`, such as 310P3; default: what it says here
  --rebuild  compile again what is in om/ already
  --print    print the command lines and run nothing; neither tools nor files are needed
Needs atc on the PATH: source /usr/local/Ascend/ascend-toolkit/set_env.sh; for --unpad ${ASCENDIE_HOME}/set_env.sh too.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/ascend.sh"
declare -A STRIDE_OF=([64]=16 [128]=64 [256]=128 [320]=128 [384]=128 [512]=128)

# onnx_of SIZE SEQ BATCH: what ATC compiles
onnx_of() {
  if [[ -n "$unpad" ]]; then echo "onnx/bert_$1_unpad.onnx"; else echo "onnx/bert_$1_seq$2_bs$3_fix.onnx"; fi
}

# atc_line SIZE SEQ BATCH: the command, into the array `command`
atc_line() {
  command=(
    atc --model "$(onnx_of "$@")" --output "$(om_of "$@")" --framework 5 --log=error --soc_version "Ascend$chip"
    --optypelist_for_implmode=Gelu --op_select_implmode=high_performance
  )
  if [[ -n "$unpad" ]]; then
    command+=("--input_shape=input_ids:-1,$2;attention_mask:-1,$2;token_type_ids:-1,$2")
  fi
}

print_line() {
  atc_line "$@"
  show "${command[@]}"
}

is_done() {
  [[ -z "$rebuild" && -f "$(om_file_of "$@")" ]]
}

check() {
  local onnx export="exports/bert_$1_seq$2" commands=()
  onnx="$(onnx_of "$@")"
  if is_done "$@" || [[ -f "$onnx" ]]; then return; fi
  if [[ ! -f "$export/manifest.json" ]]; then
    commands+=("python -m models.bert.export --export_ckpt_file bert_$1 --export_file_name $export/model \
--file_format ONNX --packed false --max_seq_length $2 --doc_stride ${STRIDE_OF[$2]}")
  fi
  if [[ -n "$unpad" ]]; then
    commands+=("python -m models.bert.fix_onnx2unpad --input_file $export/model.onnx --output_file $onnx --target ascend")
  else
    commands+=("python -m models.bert.fix_onnx --input_file $export/model.onnx --output_file $onnx --model_size $1 \
--input_shape $3,$2 --passes flatten_tokens,split_key_transpose,expand_mask")
  fi
  missing "$onnx" "${commands[@]}"
}

compile() {
  if is_done "$@"; then
    echo "$(om_file_of "$@"): there already; --rebuild compiles it again"
    return
  fi
  atc_line "$@"
  unfinished="$(om_file_of "$@")"
  run "${command[@]}"
  unfinished=""
}

# The name is in the first row below the headings: | 0       310P3     | OK ...
chip_here() {
  command -v npu-smi >/dev/null || return 0
  npu-smi info | awk '/^\+=/ && !rows++ { getline; print $3 }'
}

parse_flags "model_size seq batch_size chip" "unpad rebuild print" "$@"
[[ -z "$unpad" || -z "$batch_size" ]] || fail "--batch_size with --unpad: a dynamic model takes any batch"
choose
[[ -z "$unpad" ]] || batch_sizes=any
chip="${chip#Ascend}"
if [[ -n "$print" ]]; then
  chip="${chip:-\${chip_name\}}"
  each print_line
  exit
fi
command -v atc >/dev/null || fail "atc is not on the PATH; source /usr/local/Ascend/ascend-toolkit/set_env.sh, or --print"
chip="${chip:-$(chip_here)}"
[[ "$chip" =~ ^[0-9][0-9A-Za-z_]*$ ]] || fail "--chip ${chip:-is not given}: the name in \`npu-smi info\`, such as 310P3"
each check
stop_if_missing
mkdir -p om
unfinished=""
# What a stopped compilation left would be taken for a model.
trap '[[ -z "$unfinished" ]] || rm -f "$unfinished"' EXIT
each compile
