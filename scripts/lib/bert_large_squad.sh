# Sourced by the infer_bert_large_squad scripts: one evaluation, with their places and settings (those of the original:
# ixRT of the DeepSparkInference collection). A flag that is given again wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

# infer PRECISION FLAGS...
infer() {
  local precision="$1"
  shift
  launch "bert_large_squad_${precision}_log.txt" models.bert.evaluate --runtime onnxruntime --precision "$precision" \
    --batch_size 32 --model data/checkpoints/bert-large-uncased --eval_json_path data/datasets/squad/dev-v1.1.json \
    --output_dir "runs/bert_large_squad_$precision" "$@"
}
