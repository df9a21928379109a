# Sourced by pretrain.sh: names, and what the pretraining scripts say with --help.

MODEL=BERT TRAINING=models.bert.run_pretrain EVALUATION=models.bert.pretrain_eval
DEFAULTS=() # flags of the training, which those of the user win over
SETTINGS=scripts/ascend_distributed_launcher/hyper_parameter_config.ini

# usage: of the script that was called; `kind` says which it is
usage() {
  local script
  script="bash scripts/$(basename "$0")"
  "usage_$kind"
  usage_foreground
  if ((${#places[@]})); then
    find_python
    echo
    "$python" -m "$TRAINING" --help
  fi
}

usage_standalone() {
  cat <<TEXT
usage: $script DEVICE_ID EPOCH_SIZE DATA_DIR [SCHEMA_DIR] [--print] [FLAGS...]

Pretrains $MODEL on one device; the log is pretraining_log.txt. For example: $script 0 40 /path/cn-wiki-128
TEXT
  usage_training
}

usage_training() {
  cat <<TEXT
  SCHEMA_DIR       the schema JSON of TFRecord data
  FLAGS            further flags of python -m $TRAINING, which --help behind the arguments shows; of one
                   given twice the last counts
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
  usage_msrun_flags pretraining_log.txt
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
TEXT
  usage_table_flags
  cat <<TEXT
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
