#!/usr/bin/env bash
# Makes the pretraining data of ERNIE 1.0 from text or from Baidu's files, for example: zhwiki_extracted pretrain/zhwiki.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/flags.sh"
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

usage() {
  cat <<'END'
usage: bash scripts/convert_pretraining_datasets.sh DATASET_PATH OUTPUT_PATH [VOCAB_PATH] [FLAGS...]

DATASET_PATH  WikiExtractor's folder, or text of one sentence a line with blank lines between documents; or with
              --input_format baidu a file of Baidu's lines, with baidu_filelist a list of such files
OUTPUT_PATH   folder to make
VOCAB_PATH    default: pretrained_models/ernie_1.0_mindspore/vocab.txt

Rows of 512 tokens, 10 passes over the text, 10 shards, seed 1, as the original's script has them; jieba's words are
masked whole and text is simplified. Records have the column names of the original. FLAGS are those of
data_tools.convert pretrain; the last one wins:

END
  local project python
  find_python
  "$python" -m data_tools.convert pretrain --help
}

take_flags "input_format legacy dataset_format" "" "$@"
given=("${others[@]}")
((${#given[@]} >= 2)) || { usage >&2; fail "DATASET_PATH and OUTPUT_PATH are needed"; }
for path in "${given[@]:0:2}"; do [[ "$path" != --* ]] || fail "DATASET_PATH and OUTPUT_PATH come before $path"; done
vocab=pretrained_models/ernie_1.0_mindspore/vocab.txt
further=("${given[@]:2}")
if ((${#further[@]})) && [[ "${further[0]}" != --* ]]; then
  vocab="${further[0]}"
  further=("${further[@]:1}")
fi

settings=()
# Word masking that the data do not bring themselves.
case "${input_format:-text} ${legacy:-false}" in
  "text false") settings+=(--masking phrase --word_segmenter jieba --opencc t2s) ;;
  "baidu false") settings+=(--masking phrase) ;;
esac
# Targets: the original has 20, which is 15 % of 131 tokens.
case "${legacy:-false} ${dataset_format:-mindrecord}" in
  *" baidu") ;;
  true*) settings+=(--max_predictions_per_seq 20) ;;
  *) settings+=(--max_predictions_per_seq 77) ;;
esac
[[ "${dataset_format:-mindrecord}" != *record ]] || settings+=(--column_names ernie)
for name in input_format legacy dataset_format; do [[ -z "${!name}" ]] || settings+=("--$name" "${!name}"); done

launch convert_pretraining_log.txt data_tools.convert pretrain --input_file "${given[0]}" --output_dir "${given[1]}" \
  --vocab_file "$vocab" --max_seq_length 512 --dupe_factor 10 --random_seed 1 --shards 10 "${settings[@]}" "${further[@]}"
