# Sourced by scripts that start processes in the foreground, one or several that work together with MindSpore's msrun:
# their arguments, and what the processes find. The script defines `usage`.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

MSRUN_FLAGS="worker_num master_addr master_port node_rank bind_core cluster_time_out log_dir"
TABLE_FLAGS="hccn_config_file hccl_time_out bind_core"

usage_table_flags() {
  cat <<'TEXT'
  --hccn_config_file FILE            the addresses of this machine's devices; default /etc/hccn.conf
  --hccl_time_out SECONDS            how long ranks wait for each other at the start; default 600
  --bind_core false                  do not give each rank its share of the processor's cores
TEXT
}

# usage_msrun_flags LOG
usage_msrun_flags() {
  cat <<TEXT
Several machines: the same command on each of them, with DEVICE_NUM devices each, and
  --worker_num N   the devices of all machines
  --master_addr IP the first machine
  --node_rank I    the number of this machine; the first is 0
More of msrun: --master_port (default 8118), --bind_core, --cluster_time_out (seconds to wait for all at the start), and
  --log_dir DIR    for worker_<rank>.log, scheduler.log and $1 (this machine's first worker); default
                   LOG, or LOG_node<I> of several machines. One that holds something stays as it is, LOG_2 is next.
A worker that dies ends those of its machine within a second. The rest of the cluster, and the command itself on the first
machine, notice by missing heartbeats, after MS_NODE_TIMEOUT seconds (MindSpore has 30, here it is 10).
TEXT
}

# usage_foreground: what all these scripts have in common
usage_foreground() {
  cat <<'TEXT'
  --print          print what would be run, and run nothing
The original went to the background; here it stays in the foreground: the output is shown and added to the log, the exit
code is the command's, and Ctrl-C or SIGTERM stops all that was started.
TEXT
}

# start_workers COUNT LOG MODULE FLAGS...: becomes msrun with COUNT processes of `python -m MODULE FLAGS...` here; behind
# check_cluster and prepare
start_workers() {
  local count="$1" log="$2" module="$3" name command
  shift 3
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
  command+=(python3 -m "$module" "$@")
  [[ -n "$print" ]] || check_msrun
  # What a heartbeat may take: a worker must find the scheduler again before the scheduler gives it up.
  export MS_NODE_TIMEOUT="${MS_NODE_TIMEOUT:-10}" MS_HEARTBEAT_RETRY_TIMEOUT="${MS_HEARTBEAT_RETRY_TIMEOUT:-5}"
  run "$log_dir/$log" "${command[@]}"
}

# start_ranks TABLE LOG SCRIPT LAUNCHER FLAGS... -- FLAGS...: becomes this machine's ranks of a rank table, a process each
# of the Python file SCRIPT; behind prepare
start_ranks() {
  local table="$1" log="$2" script="$3" name launcher
  shift 3
  launcher=(
    "$python" -m models.common.launch.rank_commands --run_script_dir "$script" --hccl_config_dir "$table"
    --hccl_time_out "${hccl_time_out:-600}" --cmd_file distributed_cmd.sh --log_name "$log"
  )
  for name in hccn_config_file bind_core; do
    [[ -z "${!name}" ]] || launcher+=("--$name" "${!name}")
  done
  [[ -z "$print" ]] || launcher+=(--print)
  "${launcher[@]}" "$@"
  [[ -z "$print" ]] || exit 0
  exec "$python" -m models.common.launch.supervise --commands distributed_cmd.sh
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

# check_cluster DEVICE_NUM: whether msrun's flags fit together; sets worker_num where it is not given
check_cluster() {
  local count="$1"
  number DEVICE_NUM "$count"
  ((count > 0)) || fail "DEVICE_NUM must be at least 1, got $count"
  worker_num="${worker_num:-$count}"
  number --worker_num "$worker_num"
  number --master_port "${master_port:-8118}"
  ((worker_num > 0 && worker_num % count == 0)) ||
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
  local log="$1"
  shift
  if [[ -n "$print" ]]; then
    quoted "$@"
    exit 0
  fi
  exec "$python" -m models.common.launch.supervise --log "$log" "$@"
}
