# Sourced by the pretraining scripts: their arguments, which are the original README's, and the commands they stand for.
source "$(dirname "${BASH_SOURCE[0]}")/workers.sh"
source "$(dirname "${BASH_SOURCE[0]}")/pretrain_help.sh"

# standalone_pretrain TARGET ARGUMENTS...: one process on one device
standalone_pretrain() {
  local target="$1"
  shift
  kind=standalone
  split "$@"
  take_flags "" print "${flags[@]}"
  expect 3 4
  number DEVICE_ID "${places[0]}"
  training_flags "${places[@]:1}"
  prepare "$target" 1
  run pretraining_log.txt "$python" -m "$TRAINING" --device_target "$target" --device_id "${places[0]}" "${training[@]}"
}

# distributed_pretrain TARGET ARGUMENTS...: this machine's processes of MindSpore's own cluster
distributed_pretrain() {
  local target="$1" count
  shift
  kind="${kind:-distributed}"
  split "$@"
  take_flags "$MSRUN_FLAGS" print "${flags[@]}"
  expect 3 4
  count="${places[0]}"
  check_cluster "$count"
  training_flags "${places[@]:1}"
  prepare "$target" "$count"
  start_workers "$count" pretraining_log.txt "$TRAINING" --device_target "$target" --distribute true "${training[@]}"
}

# ascend_pretrain ARGUMENTS...: this machine's ranks of a rank table, or without one as on other devices
ascend_pretrain() {
  kind=ascend
  split "$@"
  if ((${#places[@]} != 2)); then distributed_pretrain Ascend "$@"; fi
  take_flags "hyper_parameter_config_dir $TABLE_FLAGS" print "${flags[@]}"
  prepare Ascend
  start_ranks "${places[1]}" pretraining_log.txt "$project/models/bert/run_pretrain.py" \
    --hyper_parameter_config_dir "${hyper_parameter_config_dir:-$project/$SETTINGS}" --data_dir "${places[0]}" \
    -- --device_target Ascend "${others[@]}"
}

# evaluate_pretrained TARGET FLAGS...
evaluate_pretrained() {
  local target="$1"
  shift
  kind=evaluation
  split "$@"
  take_flags "" print "${flags[@]}"
  expect 0
  prepare "$target" 1
  run pretrain_eval_log.txt "$python" -m "$EVALUATION" --device_target "$target" "${others[@]}"
}

# training_flags EPOCH_SIZE DATA_DIR [SCHEMA_DIR]: the training's flags, and those of the user's behind them, into `training`
training_flags() {
  number EPOCH_SIZE "$1"
  training=("${DEFAULTS[@]}" --epoch_size "$1" --data_dir "$2")
  (($# < 3)) || training+=(--schema_dir "$3")
  training+=("${others[@]}")
}
