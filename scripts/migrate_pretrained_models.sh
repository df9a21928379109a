#!/usr/bin/env bash
# Carries Baidu's weights of ERNIE 1.0 over to MindSpore, without Paddle.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/migrate_pretrained_models.sh [--dir SRC] [--output DST] [--from FORMAT] [--to FORMAT] [FLAGS...]

  --dir      weights; default: pretrained_models/ernie_1.0, where scripts/download_pretrained_models.sh puts them
  --output   folder to write; default: pretrained_models/ernie_1.0_FORMAT
  --from     format of the weights; default: fluid, that of Baidu's archives
  --to       format to write; default: mindspore
  --print    print the command, and run nothing
  FLAGS      further flags of python -m models.ernie.migrate, which explains the formats, too
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
source "$(dirname "${BASH_SOURCE[0]}")/lib/flags.sh"
take_flags "dir output from to" print "$@"
find_python
dir="${dir:-pretrained_models/ernie_1.0}" to="${to:-mindspore}"
[[ -e "$dir" || -n "$print" ]] || fail "$dir: not there; run scripts/download_pretrained_models.sh, or give --dir"
command=(
  "$python" -m models.ernie.migrate --from "${from:-fluid}" --to "$to" "$dir"
  "${output:-pretrained_models/ernie_1.0_$to}" "${others[@]}"
)
if [[ -n "$print" ]]; then
  quoted "${command[@]}"
else
  exec "${command[@]}"
fi
