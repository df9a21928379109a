# Sourced by run_atc.sh and run_ais_bench.sh: the tables of the original README, and the names that both go by. All files
# lie in the caller's folder: exports/ onnx/ om/ prep_data/ result/ result_unpad/.
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

SIZES="base large"
STATIC_SEQS="64 128 256 320 384 512" STATIC_BATCH_SIZES="1 4 8 16 32 64"
UNPAD_SEQS="384 512" UNPAD_BATCH_SIZES="4 8 16 32 64"

# choose: what --model_size, --seq, --batch_size and --unpad name of the tables, into sizes, seqs and batch_sizes
choose() {
  if [[ -n "$unpad" ]]; then
    seqs="$(some_of seq "$seq" "$UNPAD_SEQS")"
    batch_sizes="$(some_of batch_size "$batch_size" "$UNPAD_BATCH_SIZES")"
  else
    seqs="$(some_of seq "$seq" "$STATIC_SEQS")"
    batch_sizes="$(some_of batch_size "$batch_size" "$STATIC_BATCH_SIZES")"
  fi
  sizes="$(some_of model_size "$model_size" "$SIZES")"
}

# some_of FLAG GIVEN POSSIBLE: the list GIVEN, which commas part, or all of POSSIBLE where it is empty
some_of() {
  local given="${2//,/ }" value
  for value in $given; do
    [[ " $3 " == *" $value "* ]] || fail "--$1 $value: the tables have ${3// /, }"
  done
  echo "${given:-$3}"
}

# each FUNCTION: FUNCTION SIZE SEQ BATCH for all that was chosen
each() {
  local size seq batch
  for size in $sizes; do
    for seq in $seqs; do
      for batch in $batch_sizes; do "$1" "$size" "$seq" "$batch"; done
    done
  done
}

# om_of SIZE SEQ BATCH: what ATC is told to write. The README has one dynamic model, of 384 tokens; the 512 of its tables
# needs one of its own.
om_of() {
  if [[ -z "$unpad" ]]; then
    echo "om/bert_$1_seq$2_bs$3"
  elif [[ "$2" == 384 ]]; then
    echo "om/bert_$1_unpad"
  else
    echo "om/bert_$1_unpad_seq$2"
  fi
}

# om_file_of SIZE SEQ BATCH: the file that ATC makes of it; it names the system in dynamic ones
om_file_of() {
  echo "$(om_of "$@")${unpad:+_$(uname -s | tr '[:upper:]' '[:lower:]')_$(uname -m)}.om"
}

# missing FILE COMMAND...: notes that FILE is not there, and the commands that make it
missing() {
  [[ ", $absent," != *", $1,"* ]] || return 0
  absent+="${absent:+, }$1"
  shift
  printf -v remedy '%s  %s\n' "$remedy" "$@"
}

# stop_if_missing: an error that names everything that was noted, each command once
stop_if_missing() {
  if [[ -n "$absent" ]]; then
    echo "error: no $absent; make what is missing with" >&2
    awk 'NF && !seen[$0]++' <<<"$remedy" >&2
    exit 2
  fi
}
absent="" remedy=""

# show COMMAND...: the command as a line that a shell reads
show() {
  local word line=()
  for word in "$@"; do
    # Nothing else in these commands means something to a shell.
    [[ "$word" != *";"* ]] || word="\"$word\""
    line+=("$word")
  done
  echo "${line[*]}"
}

# run COMMAND...: shows the command and runs it; a failure ends the script with the exit code of the command
run() {
  local code=0
  show "$@"
  "$@" || code=$?
  if ((code != 0)); then
    echo "error: $1 failed with exit code $code" >&2
    exit "$code"
  fi
}
