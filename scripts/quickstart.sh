#!/usr/bin/env bash
# From nothing to F1 in MindSpore and in C++: data, weights, fine-tuning, export, offline inference, one table.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/quickstart.sh [--train_file TRAIN.json --dev_file DEV.json] [--run_dir DIR] [--recipe NAME]

Sets up .venv and then runs the whole path: SQuAD JSON -> features -> fine-tuned MiniLM -> MINDIR -> C++ program.
  --train_file, --dev_file  your own SQuAD v1.1 files; without them the project generates a small dataset
  --run_dir                 where everything is written; default runs/quickstart
  --recipe                  settings of the fine-tuning (models/bert/recipes.yaml); default quickstart,
                            with your own files squad_minilm
A run that was stopped goes on where it was when the same command is given again.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/flags.sh"
parse_flags "train_file dev_file run_dir recipe" "" "$@"
if [[ -n "$train_file" && -z "$dev_file" || -z "$train_file" && -n "$dev_file" ]]; then
  fail "--train_file and --dev_file go together"
fi
# The paths are the caller's, the rest of the script runs in the project folder.
for name in train_file dev_file run_dir; do
  if [[ -n "${!name}" ]]; then declare "$name=$(realpath -m "${!name}")"; fi
done

cd "$(dirname "$0")/.."
run_dir="${run_dir:-$PWD/runs/quickstart}"
source scripts/lib/environment.sh
echo "[1/6] setting up .venv and the C++ program"
make_environment ""
bash ascend310_infer/build.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
python=.venv/bin/python

echo "[2/6] data"
if [[ -z "$train_file" ]]; then
  recipe="${recipe:-quickstart}"
  "$python" -m data_tools.synthetic_squad --output_dir "$run_dir/data"
  train_file="$run_dir/data/train.json" dev_file="$run_dir/data/dev.json"
fi
weights="$("$python" -c 'from models.common.weights.embedded import minilm_folder; print(minilm_folder())')"
"$python" -m data_tools.convert squad --input_file "$train_file" --vocab_file "$weights/vocab.txt" \
  --output_dir "$run_dir/features/train" --is_training true --skip_misaligned true --overwrite true
"$python" -m data_tools.convert squad --input_file "$dev_file" --vocab_file "$weights/vocab.txt" \
  --output_dir "$run_dir/features/dev" --is_training false --overwrite true

echo "[3/6] fine-tuning and evaluation in MindSpore"
"$python" -m models.bert.run_squad --recipe "${recipe:-squad_minilm}" --do_train true --do_eval true \
  --train_data_file_path "$run_dir/features/train" --eval_data_file_path "$run_dir/features/dev" \
  --eval_json_path "$dev_file" --load_pretrain_checkpoint_path "$weights" \
  --save_finetune_checkpoint_path "$run_dir/mindspore"

echo "[4/6] export"
"$python" -m models.bert.export --export_ckpt_file "$run_dir/mindspore/best" --export_file_name "$run_dir/mindir/squad" \
  --file_format MINDIR_LITE

echo "[5/6] offline inference in C++"
bash scripts/run_infer_310.sh "$run_dir/mindir" "$dev_file" y CPU 0 "$run_dir/mslite_cpp"

echo "[6/6] report"
"$python" -m models.common.report "mindspore=$run_dir/mindspore" "mslite_cpp=$run_dir/mslite_cpp" \
  --output "$run_dir/report.json"
echo "loss curve: $run_dir/mindspore/curves.png"
echo "report:     $run_dir/report.json"
