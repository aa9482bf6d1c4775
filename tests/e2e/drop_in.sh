#!/usr/bin/env bash
# run_batch_flash_pro.sh in place of the older script: its flags, and the memory mode as a variable.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
mkdir -p "$tmp/bin"
ln -s "$program" "$tmp/bin/echomimic"
cd "$tmp"
cp -r "$model" flash-pro
list media.json "$(job "$face" "$voice" one)"
export PATH=$tmp/bin:$PATH PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:512
small=(--config_path flash-pro/config.yaml "${quick[@]}")
expect 0 "$share/run_batch_flash_pro.sh" "${small[@]}"
says "lightweight"
has outputs/one_output.mp4
MEMORY_MODE=beefy expect 0 "$share/run_batch_flash_pro.sh" "${small[@]}" --force
says "beefy"
MEMORY_MODE=huge expect 2 "$share/run_batch_flash_pro.sh" "${small[@]}"
says "--memory_mode"
passed
