# Sourced by pretrain.sh: names, and what the pretraining scripts say with --help.

TRAINING=models.bert.run_pretrain EVALUATION=models.bert.pretrain_eval
SETTINGS=scripts/ascend_distributed_launcher/hyper_parameter_config.ini
MSRUN_FLAGS="worker_num master_addr master_port node_rank bind_core cluster_time_out log_dir"
TABLE_FLAGS="hyper_parameter_config_dir hccn_config_file hccl_time_out bind_core"

# usage: of the script that was called; `kind` says which it is
usage() {
  local script
  script="bash scripts/$(basename "$0")"
  "usage_$kind"
  cat <<'TEXT'
  --print          print what would be run, and run nothing
The original went to the background; here it stays in the foreground: the output is shown and added to the log, the exit
code is the command's, and Ctrl-C or SIGTERM stops all that was started.
TEXT
}

usage_standalone() {
  cat <<TEXT
usage: $script DEVICE_ID EPOCH_SIZE DATA_DIR [SCHEMA_DIR] [--print] [FLAGS...]

Pretrains BERT on one device; the log is pretraining_log.txt. For example: $script 0 40 /path/cn-wiki-128
TEXT
  usage_training
}

usage_training() {
  cat <<TEXT
  SCHEMA_DIR       the schema JSON of TFRecord data
  FLAGS            further flags of python -m $TRAINING, see its --help; of one given twice the last counts
TEXT
}

usage_distributed() {
  cat <<TEXT
usage: $script DEVICE_NUM EPOCH_SIZE DATA_DIR [SCHEMA_DIR] [--print] [MSRUN FLAGS...] [FLAGS...]

Pretrains BERT on DEVICE_NUM devices of this machine, with MindSpore's msrun. For example: $script 8 40 /path/cn-wiki-128
TEXT
  usage_msrun
}

usage_msrun() {
  usage_training
  cat <<'TEXT'
Several machines: the same command on each of them, with DEVICE_NUM devices each, and
  --worker_num N   the devices of all machines
  --master_addr IP the first machine
  --node_rank I    the number of this machine; the first is 0
More of msrun: --master_port (default 8118), --bind_core, --cluster_time_out (seconds to wait for all at the start), and
  --log_dir DIR    for worker_<rank>.log, scheduler.log and pretraining_log.txt (this machine's first worker); default
                   LOG, or LOG_node<I> of several machines. One that holds something stays as it is, LOG_2 is next.
A worker that dies ends those of its machine within a second. The rest of the cluster, and the command itself on the first
machine, notice by missing heartbeats, after MS_NODE_TIMEOUT seconds (MindSpore has 30, here it is 10).
TEXT
}

usage_ascend() {
  cat <<TEXT
usage: $script DATA_DIR RANK_TABLE_FILE [--print] [LAUNCHER FLAGS...] [FLAGS...]
       $script DEVICE_NUM EPOCH_SIZE DATA_DIR [SCHEMA_DIR] [--print] [MSRUN FLAGS...] [FLAGS...]

Pretrains BERT on many Ascend devices. With a rank table: this machine's ranks, a process each, whose output is added to
LOG<device id>/pretraining_log.txt; start it on every machine of the table. When a rank fails, it is named and the others
here are stopped. Writes distributed_cmd.sh, a line for each rank. For example: $script /path/cn-wiki-128 /path/hccl.json
  RANK_TABLE_FILE  python -m models.common.launch.rank_table makes it
  --hyper_parameter_config_dir FILE  default $SETTINGS
  --hccn_config_file FILE            the addresses of this machine's devices; default /etc/hccn.conf
  --hccl_time_out SECONDS            how long ranks wait for each other at the start; default 600
  --bind_core false                  do not give each rank its share of the processor's cores
Without one: DEVICE_NUM devices of this machine, with MindSpore's msrun. For example: $script 8 40 /path/cn-wiki-128
TEXT
  usage_msrun
}

usage_evaluation() {
  cat <<TEXT
usage: $script --data_dir DIR --load_checkpoint_path CHECKPOINT [--print] [FLAGS...]

Scores a pretrained checkpoint: accuracy of the masked words and of the next sentence; the log is pretrain_eval_log.txt.
  FLAGS            further flags of python -m $EVALUATION, see its --help; of one given twice the last counts
TEXT
}
