# Sourced by the pretraining scripts: their arguments, which are the original README's, and the commands they stand for.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"
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
  local target="$1" count name command
  shift
  kind="${kind:-distributed}"
  split "$@"
  take_flags "$MSRUN_FLAGS" print "${flags[@]}"
  expect 3 4
  count="${places[0]}"
  check_cluster "$count"
  training_flags "${places[@]:1}"
  prepare "$target" "$count"
  command=(
    msrun --worker_num "$worker_num" --local_worker_num "$count" --master_addr "${master_addr:-127.0.0.1}"
    --master_port "${master_port:-8118}"
  )
  for name in node_rank bind_core cluster_time_out; do
    [[ -z "${!name}" ]] || command+=("--$name" "${!name}")
  done
  log_dir="$(free_folder "${log_dir:-LOG${node_rank:+_node$node_rank}}")"
  # Of this machine the first worker is shown.
  command+=(--log_dir "$log_dir" --join True --tail_worker_log "$((${node_rank:-0} * count))")
  command+=(python3 -m "$TRAINING" --device_target "$target" --distribute true "${training[@]}")
  [[ -n "$print" ]] || check_msrun
  # What a heartbeat may take: a worker must find the scheduler again before the scheduler gives it up.
  export MS_NODE_TIMEOUT="${MS_NODE_TIMEOUT:-10}" MS_HEARTBEAT_RETRY_TIMEOUT="${MS_HEARTBEAT_RETRY_TIMEOUT:-5}"
  run "$log_dir/pretraining_log.txt" "${command[@]}"
}

# ascend_pretrain ARGUMENTS...: this machine's ranks of a rank table, or without one as on other devices
ascend_pretrain() {
  local launcher name
  kind=ascend
  split "$@"
  if ((${#places[@]} != 2)); then distributed_pretrain Ascend "$@"; fi
  take_flags "$TABLE_FLAGS" print "${flags[@]}"
  prepare Ascend
  launcher=(
    "$python" -m models.common.launch.rank_commands --run_script_dir "$project/models/bert/run_pretrain.py"
    --hyper_parameter_config_dir "${hyper_parameter_config_dir:-$project/$SETTINGS}" --data_dir "${places[0]}"
    --hccl_config_dir "${places[1]}" --hccl_time_out "${hccl_time_out:-600}" --cmd_file distributed_cmd.sh
  )
  for name in hccn_config_file bind_core; do
    [[ -z "${!name}" ]] || launcher+=("--$name" "${!name}")
  done
  [[ -z "$print" ]] || launcher+=(--print)
  "${launcher[@]}" -- --device_target Ascend "${others[@]}"
  [[ -z "$print" ]] || exit 0
  exec "$python" -m models.common.launch.supervise --commands distributed_cmd.sh
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

# split ARGUMENTS...: those before the first flag into the array `places`, the others into `flags`
split() {
  places=()
  while (($#)) && [[ "$1" != -* ]]; do
    places+=("$1")
    shift
  done
  flags=("$@")
}

# expect LEAST [MOST]: an error where there are more or fewer arguments before the first flag
expect() {
  local count="${#places[@]}"
  ((count >= $1 && count <= ${2:-$1})) || fail "$count arguments before the first flag; --help tells which it takes"
}

# number NAME VALUE
number() {
  [[ "$2" =~ ^(0|[1-9][0-9]*)$ ]] || fail "$1 must be a number, got $2"
}

# training_flags EPOCH_SIZE DATA_DIR [SCHEMA_DIR]: the training's flags, and those of the user's behind them, into `training`
training_flags() {
  number EPOCH_SIZE "$1"
  training=(--epoch_size "$1" --data_dir "$2")
  (($# < 3)) || training+=(--schema_dir "$3")
  training+=("${others[@]}")
}

# check_cluster DEVICE_NUM: whether msrun's flags fit together; sets worker_num where it is not given
check_cluster() {
  local count="$1"
  number DEVICE_NUM "$count"
  worker_num="${worker_num:-$count}"
  number --worker_num "$worker_num"
  number --master_port "${master_port:-8118}"
  ((count > 0 && worker_num % count == 0)) ||
    fail "--worker_num $worker_num: every machine must have DEVICE_NUM ($count) of them"
  if ((worker_num == count)); then
    [[ -z "$node_rank" ]] || fail "--node_rank without --worker_num N, the number of devices of all machines"
    return
  fi
  [[ -n "$master_addr" ]] || fail "--worker_num $worker_num: needs --master_addr, the address of the first machine"
  number --node_rank "$node_rank"
  ((node_rank < worker_num / count)) || fail "--node_rank $node_rank: the machines are 0 to $((worker_num / count - 1))"
}

# check_msrun: an error where msrun is not there, or its port is taken (its workers would wait for minutes, or join another run)
check_msrun() {
  local address="${master_addr:-127.0.0.1}" port="${master_port:-8118}"
  command -v msrun >/dev/null || fail "msrun is not on the PATH; it comes with MindSpore, run scripts/setup.sh"
  if [[ "${node_rank:-0}" == 0 ]] && (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then
    fail "port $port of $address is taken, perhaps by another run; choose another with --master_port"
  fi
}

# free_folder NAME: NAME, or the first of NAME_2, NAME_3, ... that holds nothing; msrun overwrites logs
free_folder() {
  local folder="$1" next=2
  while [[ -n "$(ls -A "$folder" 2>/dev/null)" ]]; do
    folder="$1_$((next++))"
  done
  echo "$folder"
}

# prepare TARGET [COUNT]: what processes find; COUNT of them share the processor's cores (ranks of a table are bound to theirs)
prepare() {
  local share
  find_python
  # msrun starts the python3 of the PATH.
  export PATH="$(dirname "$python"):$PATH"
  if (($# > 1)); then
    share=$(($(nproc) / $2))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((share > 0 ? share : 1))}"
  fi
  # As the original: Ascend's compiler goes deep. Where the system does not allow it, its own limit stays.
  if [[ "$1" == Ascend ]]; then ulimit -s 102400 2>/dev/null || true; fi
}

# run LOG COMMAND...: the command becomes this script's process; with --print it is shown instead
run() {
  local log="$1" line
  shift
  if [[ -n "$print" ]]; then
    printf -v line '%q ' "$@"
    echo "${line% }"
    exit 0
  fi
  exec "$python" -m models.common.launch.supervise --log "$log" "$@"
}
