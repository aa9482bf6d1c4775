#!/usr/bin/env bash
# run_batch_flash_pro.sh [FLAG...]: in place of the Python tool's script of that name. One switch:
#
#     MEMORY_MODE=lightweight   weights in memory only while they are used (any hardware)
#     MEMORY_MODE=beefy         weights stay in memory
#     MEMORY_MODE=auto          as much as fits
#
# Everything else is a flag of `echomimic batch`, with the name that it had; a flag given here, behind
# the script's name, wins over the one below. Edit the values below as you did in the old script.
set -euo pipefail

MEMORY_MODE=${MEMORY_MODE:-lightweight}

models=flash-pro # the folder with the released weights
[ -d "$models" ] || models=flash
flags=(
    --json_path "media.json"
    --model_name "$models/Wan2.1-Fun-V1.1-1.3B-InP"
    --transformer_path "$models/transformer/diffusion_pytorch_model.safetensors"
    --wav2vec_model_dir "$models/chinese-wav2vec2-base"
    --save_path "outputs"
    --num_inference_steps 8
    --sampler_name "Flow_Unipc"
    --video_length 330
    --guidance_scale 7.0
    --audio_guidance_scale 8
    --seed 43
    --enable_teacache
    --weight_dtype "bfloat16"
    --sample_size 512 512
    --fps 25
)

# The program: on the path, where this script was installed with it, or in the source tree's build.
here=$(dirname "$(readlink -f "$0")")
program=$(command -v echomimic || true)
for candidate in "$here/../../bin/echomimic" "$here/../build/release/src/cli/echomimic"; do
    [ -n "$program" ] || [ ! -x "$candidate" ] || program=$candidate
done
if [ -z "$program" ]; then
    echo "error: echomimic is neither on the PATH nor built: see README.md" >&2
    exit 3
fi
exec "$program" batch "${flags[@]}" --memory_mode "$MEMORY_MODE" "$@"
