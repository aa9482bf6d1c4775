#!/usr/bin/env bash
# bench/parallel.sh PROGRAM DEVICE [MODEL [MODE]]: do several jobs at once help? A batch of 12 clips of
# 256 x 256 x 25 and one of 4 clips of 512 x 512 x 81 with --parallel_jobs 1, 2 and 3; a JSON line each:
# seconds a clip from the first job's start to the last one's end (weights come in on the way), and seconds of
# the process. MODEL is a folder of `synth`; without one a full-size checkpoint is made (20 GB in $TMPDIR).
# MODE is the memory mode (beefy). STEPS, JOBS_SMALL, JOBS_LARGE change the sizes of the work.
set -euo pipefail
program=$(readlink -f "$1") device=$2 model=${3:-} mode=${4:-beefy}
steps=${STEPS:-8}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$model" ]; then
    model=$work/model
    "$program" synth --size full --out "$model" >/dev/null
fi
model=$(readlink -f "$model")
cd "$work"
head -c 1920000 /dev/urandom >noise
{ printf 'P6\n800 800\n255\n' && cat noise; } >face.ppm
{ # 20 s of noise as 16 kHz mono WAV: for timing only
    printf 'RIFF\x24\xc4\x09\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00'
    printf '\x02\x00\x10\x00data\x00\xc4\x09\x00' && head -c 640000 noise
} >voice.wav

# take JOBS SIDE FRAMES LANES: one batch, one line.
take() {
    local jobs=$1 side=$2 frames=$3 lanes=$4 comma='' start end i
    {
        echo "["
        for ((i = 1; i <= jobs; i++)); do
            printf '%s{"portrait_image": "face.ppm", "portrait_audio": "voice.wav", "output_name": "v%d", "seed": %d}' \
                "$comma" "$i" "$i"
            comma=$',\n'
        done
        echo "]"
    } >jobs.json
    rm -rf out
    start=$(date +%s.%N)
    "$program" batch --json_path jobs.json --save_path out --device "$device" --memory_mode "$mode" --no_teacache \
        --config_path "$model/config.yaml" --model_name "$model/Wan2.1-Fun-V1.1-1.3B-InP" \
        --transformer_path "$model/transformer/diffusion_pytorch_model.safetensors" \
        --wav2vec_model_dir "$model/chinese-wav2vec2-base" --sample_size "$side" "$side" --video_length "$frames" \
        --num_inference_steps "$steps" --parallel_jobs "$lanes" --quiet >log 2>&1 || { cat log >&2 && exit 1; }
    end=$(date +%s.%N)
    awk -v jobs="$jobs" -v side="$side" -v frames="$frames" -v lanes="$lanes" -v steps="$steps" -v mode="$mode" \
        -v device="$device" -v wall="$(awk "BEGIN { print $end - $start }")" '
        /"run_seconds"/ { sub(/,$/, ""); run = $2 }
        END { printf "{\"device\": \"%s\", \"mode\": \"%s\", \"side\": %d, \"frames\": %d, \"steps\": %d, \"jobs\": %d, " \
              "\"parallel_jobs\": %d, \"seconds_per_clip\": %.3f, \"process_seconds\": %.2f}\n",
              device, mode, side, frames, steps, jobs, lanes, run / jobs, wall }' out/batch_report.json
}
take 1 256 25 1 >/dev/null # files into the page cache, prompts into the user's cache
for lanes in 1 2 3; do take "${JOBS_SMALL:-12}" 256 25 $lanes; done
for lanes in 1 2 3; do take "${JOBS_LARGE:-4}" 512 81 $lanes; done
