#!/usr/bin/env bash
# tests/e2e/modes.sh PROGRAM DEVICE [SIZE]: the checklist of the memory modes, in both modes, on one device
# (cpu, cuda, …). Needs nothing but the program: it makes a checkpoint (synth --size SIZE, tiny if not
# said; a GPU's scratch leaves room for all of that, so bench/quarter.json is what is streamed there), a
# picture and a sound, and runs batches of two jobs; PPM and WAV in, MP4 or Y4M out, whatever the build
# writes. A line per item of the list, `ok` or `FAILED` with what was found; 77: there is no such
# device here.
set -uo pipefail
program=$(readlink -f "$1") device=$2 size=${3:-tiny}
[ ! -e "$size" ] || size=$(readlink -f "$size")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache
cd "$tmp" || exit 1
passed=0 failed=0 why=''

# ---- what the checks are made of ----

# item TEXT: one line of the list; it failed when something was complained about since the last one.
item() {
    if [ -z "$why" ]; then
        echo "ok      $1"
        passed=$((passed + 1))
    else
        echo "FAILED  $1:$why"
        failed=$((failed + 1))
    fi
    why=''
}
complain() { why+=" $*;"; }
holds() { # holds A OP B WHAT: whole numbers
    [ -n "$1" ] && [ -n "$3" ] && [ "$1" "$2" "$3" ] || complain "$4 ('$1' $2 '$3' is not so)"
}

# value FILE jobs.0.stages.audio.measured.copied_bytes: of a memory report, which has a key a line and one
# blank a level.
value() {
    awk -v want="$2" '
        { match($0, /^ */); d = RLENGTH; line = substr($0, d + 1) }
        line ~ /^"/ {
            split(line, quoted, "\""); key[d] = quoted[2]
            rest = line; sub(/^"[^"]*": /, "", rest); sub(/,$/, "", rest)
            if (rest == "[") next_item[d + 1] = 0
        }
        line ~ /^{/ && d > 0 { key[d] = next_item[d]++; rest = "{" }
        line ~ /^["{]/ {
            path = key[1]; for (i = 2; i <= d; i++) path = path "." key[i]
            if (path == want) { gsub(/^"|"$/, "", rest); print rest; exit }
        }' "$1" 2>/dev/null
}
stage() { value "$1.json" "jobs.$2.stages.$3.measured.$4"; }
whole() { value "$1.json" "jobs.$2.$3"; }
held() { # held RUN JOB STAGE: weights at once, wherever they are
    echo $(($(stage "$1" "$2" "$3" weights_bytes) + $(stage "$1" "$2" "$3" mapped_bytes)))
}
hashes() { (cd "$1" && sha256sum -- *_output.*); }

# ---- runs ----

"$program" synth --size "$size" --out model >synth.log 2>&1 || { cat synth.log && exit 1; }
gzip -n < <(seq 30000) >noise # the same in every run
{ printf 'P6\n64 64\n255\n' && head -c 12288 noise; } >face.ppm
{ # a second of noise, 16 kHz mono
    printf 'RIFF\x24\x7d\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00'
    printf '\x02\x00\x10\x00data\x00\x7d\x00\x00' && tail -c 32000 noise
} >voice.wav
cat >jobs.json <<'JOBS'
[{"portrait_image": "face.ppm", "portrait_audio": "voice.wav", "output_name": "one"},
 {"portrait_image": "face.ppm", "portrait_audio": "voice.wav", "output_name": "two", "seed": 7}]
JOBS
checkpoint=(--config_path model/config.yaml --model_name model/Wan2.1-Fun-V1.1-1.3B-InP
    --transformer_path model/transformer/diffusion_pytorch_model.safetensors
    --wav2vec_model_dir model/chinese-wav2vec2-base)
clip=(--sample_size 32 32 --video_length 5 --num_inference_steps 2 --no_teacache)

# run NAME FLAG...: both jobs into NAME/, the report in NAME.json, what was said in NAME.log.
run() {
    local name=$1
    shift
    "$program" batch "${checkpoint[@]}" "${clip[@]}" --device "$device" --json_path jobs.json --save_path "$name" \
        --memory_report "$name.json" "$@" >"$name.log" 2>&1 </dev/null || complain "'$name' ends with $?: $(tail -n 3 "$name.log")"
}

"$program" plan "${checkpoint[@]}" "${clip[@]}" --device "$device" --json >plan.json 2>plan.log
if [ $? -ne 0 ] && grep -q -- '--device' plan.log; then
    cat plan.log
    exit 77
fi
least=$(sed -n 's/.*"smallest_vram_budget_bytes": \([0-9]*\).*/\1/p' plan.json)
[ "$least" -ge 1048576 ] || least=1048576
run default
run lightweight --memory_mode lightweight --vram_budget "$least"
run beefy --memory_mode beefy
run auto --memory_mode auto
run tight --memory_mode auto --vram_budget "$least" # streamed in a block that is kept
run lightweight.ear --memory_mode lightweight --audio_device cpu
run beefy.ear --memory_mode beefy --audio_device cpu
item "every mode runs"
name=$(value beefy.json device)
# Memory of the CPU's: weights may be used where their files have them, and are then copied nowhere.
[ "$name" = cpu ] && far=0 || far=1

# ---- the list ----

for mode in lightweight beefy; do
    for job in 0 1; do
        holds "$(whole $mode $job host_rss_peak_bytes)" -le "$(whole $mode $job planned.host_bytes)" "$mode, job $job, host"
    done
done
# Held twice, or all at once, lightweight would pass what it forecasts; beefy reads each file once.
holds "$(whole lightweight 0 measured.weight_bytes)" -lt "$(whole beefy 0 measured.weight_bytes)" "weights at once"
holds "$(whole beefy 0 measured.copied_bytes)" -le "$(whole lightweight 0 measured.copied_bytes)" "bytes copied"
item "models load one tensor at a time / whole"

if [ $far = 1 ]; then
    holds "$(stage lightweight 1 audio copied_bytes)" -gt 0 "lightweight, the second job copies the encoder"
    holds "$(stage lightweight 1 audio copied_bytes)" -eq "$(stage lightweight 0 audio copied_bytes)" "lightweight, the same again"
    holds "$(whole beefy 0 measured.copied_bytes)" -gt 0 "beefy, the first job copies, be it ahead of the stage"
    holds "$(stage beefy 1 audio copied_bytes)" -eq 0 "beefy, the second job copies the encoder"
else
    holds "$(held lightweight 1 audio)" -eq "$(held lightweight 0 audio)" "lightweight, the second job finds nothing"
    holds "$(held lightweight 0 denoise)" -lt "$(($(held beefy 0 denoise) - $(held lightweight 0 audio)))" "lightweight, let go"
    holds "$(held beefy 0 denoise)" -gt "$(held beefy 0 audio)" "beefy, kept"
    holds "$(held beefy 1 encode)" -ge "$(held beefy 0 denoise)" "beefy, kept for the second job"
fi
item "audio encoder dropped after use / kept"

for mode in lightweight beefy; do
    [ "$(whole $mode.ear 0 voice.device)" = cpu ] || complain "$mode: the voice is heard on '$(whole $mode.ear 0 voice.device)'"
    [ "$(whole $mode 0 voice.device)" = "$name" ] || complain "$mode: nobody asked for '$(whole $mode 0 voice.device)'"
    for what in block_bytes scratch_bytes weights_bytes mapped_bytes; do
        holds "$(whole $mode.ear 0 voice.planned.$what)" -eq "$(whole $mode.ear 0 voice.measured.$what)" "$mode, $what"
    done
    [ $far = 0 ] || holds "$(whole $mode.ear 0 voice.measured.scratch_bytes)" -gt 0 "$mode, scratch on the host"
done
[ "$(hashes lightweight.ear)" = "$(hashes beefy.ear)" ] || complain "the modes differ"
[ $far = 1 ] || [ "$(hashes beefy.ear)" = "$(hashes beefy)" ] || complain "on the CPU it is no other device"
item "audio encoder on the CPU when asked"

if [ $far = 1 ]; then
    grep -q 'streamed while it computes' lightweight.log || complain "lightweight does not say what is streamed"
    holds "$(stage lightweight 0 denoise copied_bytes)" -gt "$(stage beefy 0 denoise copied_bytes)" "lightweight streams"
    for what in encode image audio denoise decode; do
        holds "$(stage beefy 1 $what copied_bytes)" -eq 0 "beefy, second job, $what"
    done
else
    holds "$(held beefy 1 denoise)" -eq "$(whole beefy 1 measured.weight_bytes)" "beefy, all are there"
    holds "$(held lightweight 1 denoise)" -lt "$(held beefy 1 denoise)" "lightweight, some are there"
fi
item "weights streamed / resident"

for mode in default lightweight beefy auto tight lightweight.ear beefy.ear; do
    for job in 0 1; do
        holds "$(whole $mode $job measured.scratch_bytes)" -eq "$(whole $mode $job planned.scratch_bytes)" "$mode, job $job, scratch"
        for what in weight_bytes copied_bytes; do
            holds "$(whole $mode $job measured.$what)" -eq "$(whole $mode $job planned.$what)" "$mode, job $job, $what"
        done
    done
    holds "$(whole $mode 0 fragmentation_bytes)" -eq 0 "$mode, beyond the plan"
    # The block of the first job may be kept for a second one that needs less.
    most=$(whole $mode 0 block_bytes) block=$(whole $mode 1 block_bytes)
    [ "$most" -ge "$block" ] || most=$block
    holds "$((block + $(whole $mode 1 fragmentation_bytes)))" -le "$most" "$mode, the second job's block"
done
holds "$(whole lightweight 0 block_bytes)" -le "$least" "the smallest --vram_budget"
item "peak device memory within the plan"

for mode in default lightweight beefy auto lightweight.ear beefy.ear; do
    for job in 0 1; do
        holds "$(whole $mode $job host_rss_peak_bytes)" -le "$(whole $mode $job planned.host_bytes)" "$mode, job $job"
    done
done
[ $far = 1 ] || holds "$(whole lightweight 0 planned.host_bytes)" -lt "$(whole beefy 0 planned.host_bytes)" "lightweight takes less"
item "peak host memory while loading"

for mode in default lightweight beefy auto; do
    holds "$(hashes $mode | wc -l)" -ge 2 "$mode, videos"
    grep -q '2 done' $mode.log || complain "$mode: $(tail -n 1 $mode.log)"
done
[ "$(hashes default | cut -d' ' -f1 | sort -u | wc -l)" -ge 2 ] || complain "two seeds, one video"
item "several videos in one batch"

for mode in lightweight beefy auto tight; do
    [ "$(hashes $mode)" = "$(hashes default)" ] || complain "$mode makes other videos"
done
item "same frames in both modes"

[ "$(value default.json mode)" = lightweight ] || complain "it is '$(value default.json mode)'"
item "default is lightweight"

if "$program" batch --json_path jobs.json "${checkpoint[@]}" --device "$device" --save_path old --prompt "a person speaks" \
    --negative_prompt "blur" --sampler_name Flow_Unipc --video_length 5 --guidance_scale 6.0 --audio_guidance_scale 3.0 \
    --num_inference_steps 6 --seed 43 --enable_teacache --teacache_threshold 0.1 --num_skip_start_steps 5 \
    --teacache_offload --weight_dtype bfloat16 --sample_size 64 64 --fps 25 --temp_dir "$tmp" --keep_temp >old.log 2>&1; then
    holds "$(hashes old | wc -l)" -ge 2 "videos"
    grep -q '^lightweight' old.log || complain "the mode is not said"
else
    complain "it ends with $?: $(tail -n 3 old.log)"
fi
item "every old flag still works without the new one"

echo "$passed passed, $failed failed on $name"
[ $failed -eq 0 ]
