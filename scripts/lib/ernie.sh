# Sourced by the scripts of ERNIE's tasks: what a TASK_TYPE stands for, and where the scripts before and behind have put
# their files, below the caller's folder. The script defines `usage`.
source "$(dirname "${BASH_SOURCE[0]}")/workers.sh"

TASK_TYPES="chnsenticorp msra_ner xnli dbqa drcd cmrc"
WEIGHTS=pretrained_models/ernie_1.0_mindspore # of migrate_pretrained_models.sh
TASK_DATA=data/task_data                      # of download_datasets.sh

# choose_task TASK_TYPE: into `task` and `module` its command of models.ernie; `folder`, `suffix` its files in Baidu's task
# data; `scored` the part that is scored behind the training; `conversion` the flags of data_tools.convert; `length` the
# tokens of a row; `windows` the flags of how long texts are cut; `head` what the export calls it. Folders and lengths are
# the original's.
choose_task() {
  task="$1" folder="$1" suffix=tsv scored=test length=512 windows=()
  case "$task" in
    msra_ner) module=models.ernie.run_ner head=ner length=256 ;;
    chnsenticorp | xnli | dbqa) module=models.ernie.run_classifier head=classifier ;;
    drcd | cmrc) module=models.ernie.run_mrc head=squad suffix=json ;;
    *) fail "TASK_TYPE must be one of ${TASK_TYPES// /, }, got $task" ;;
  esac
  case "$task" in
    chnsenticorp) length=256 ;;
    dbqa) folder=nlpcc-dbqa ;;
    cmrc) folder=cmrc2018 scored=dev ;; # its test set was never published
  esac
  case "$head" in
    classifier) conversion=(classification --dataset "$task") ;;
    ner) conversion=(tagging --dataset msra --repair_tags true) ;;
    squad)
      windows=(--max_query_length 64 --doc_stride 128 --stride_is step)
      conversion=(squad "${windows[@]}")
      ;;
  esac
}

# evaluation_data PART: into `evaluated` the flags of the task's command that name what it is scored on
evaluation_data() {
  evaluated=(--eval_data_file_path "data/$folder/${task}_$1")
  if [[ "$suffix" == json ]]; then evaluated+=(--eval_json_path "$TASK_DATA/$folder/$1.json"); fi
}

# training_of_task: into `training` the flags of the task's command that train with the recipe of its name, or another
# that the user gives, on features as convert_finetune_datasets.sh makes them
training_of_task() {
  evaluation_data dev
  training=(
    --recipe "$task" --max_seq_length "$length" "${windows[@]}" --do_train true --do_eval true
    --train_data_file_path "data/$folder/${task}_train" "${evaluated[@]}"
    --load_pretrain_checkpoint_path "$WEIGHTS" --save_finetune_checkpoint_path "save_models/$task"
  )
}

usage_tasks() {
  cat <<TEXT
  TASK_TYPE        ${TASK_TYPES// /, }
TEXT
}

# usage_command [MODULE]: where a TASK_TYPE is given, always the last argument, the flags of its command, or of MODULE
usage_command() {
  ((${#places[@]})) && [[ " $TASK_TYPES " == *" ${places[-1]} "* ]] || return 0
  choose_task "${places[-1]}"
  find_python
  echo
  # A conversion is a command below that of the module.
  case "${1:-}" in
    data_tools.convert) "$python" -m "$1" "${conversion[0]}" --help ;;
    *) "$python" -m "${1:-$module}" --help ;;
  esac
}

# usage_of_training: TASK_TYPE, and where the flags that training_of_task gives point to
usage_of_training() {
  usage_tasks
  cat <<TEXT
  FLAGS            further flags of the task's command, which --help behind a TASK_TYPE shows; of one given twice the last
                   counts. Given already: the recipe of the task's name in models/ernie/recipes.yaml, the lengths of
                   convert_finetune_datasets.sh, features data/FOLDER/TASK_TYPE_train and _dev, weights $WEIGHTS,
                   run folder save_models/TASK_TYPE
TEXT
  usage_foreground
  usage_command
}
