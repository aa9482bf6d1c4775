#!/usr/bin/env bash
# tests/e2e/parallel.sh PROGRAM DEVICE [STEPS]: several jobs at once. The same videos as one after the other; a job that
# fails is one alone; an interrupt stops all of them and leaves each to be gone on with; budgets are shared; a
# full disk stops all. PPM and WAV in, MP4 or Y4M out: runs anywhere. 77: there is no such device here.
# STEPS: of the jobs that are interrupted; a slow program needs fewer to be caught in the middle.
set -euo pipefail
program=$(readlink -f "$1") device=$2 steps=${3:-300}
tmp=$(mktemp -d)
trap 'umount "$tmp/disk" 2>/dev/null || true; rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache
cd "$tmp"
checks=0
fail() {
    echo "FAIL: $*"
    [ ! -s err ] || sed 's/^/    /' err
    exit 1
}
ok() { checks=$((checks + 1)); }

"$program" synth --size tiny --out model >/dev/null 2>&1
gzip -n < <(seq 30000) >noise # the same in every run
{ printf 'P6\n64 64\n255\n' && head -c 12288 noise; } >face.ppm
{
    printf 'RIFF\x24\x7d\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00'
    printf '\x02\x00\x10\x00data\x00\x7d\x00\x00' && tail -c 32000 noise
} >voice.wav
# jobs N BAD: N jobs with seeds of their own; the BAD-th has no picture.
jobs() {
    local i comma='' face
    echo "["
    for ((i = 1; i <= $1; i++)); do
        [ "$i" = "${2:-0}" ] && face=none.ppm || face=face.ppm
        printf '%s{"portrait_image": "%s", "portrait_audio": "voice.wav", "output_name": "v%d", "seed": %d}' \
            "$comma" "$face" "$i" "$i"
        comma=$',\n'
    done
    echo "]"
}
jobs 6 >six.json
jobs 6 3 >bad.json
checkpoint=(--config_path model/config.yaml --model_name model/Wan2.1-Fun-V1.1-1.3B-InP
    --transformer_path model/transformer/diffusion_pytorch_model.safetensors
    --wav2vec_model_dir model/chinese-wav2vec2-base)
clip=(--sample_size 64 64 --video_length 5)
run() { # run RC FLAG...
    local want=$1 rc=0
    shift
    "$program" batch "${checkpoint[@]}" "${clip[@]}" --device "$device" "$@" >out 2>err </dev/null || rc=$?
    [ $rc -eq "$want" ] || fail "'$*' ended with $rc, expected $want"
    ok
}
hashes() { (cd "$1" && sha256sum -- v?_output.* | grep -v "${2:-nothing}"); }
# holds_together NAME N: the process is no larger than what N lanes said that they would take.
holds_together() {
    local i file may=0 peak=0 once most value
    for ((i = 1; i <= $2; i++)); do
        file=$1.json
        [ $i = 1 ] || file=$1.$i.json
        once=$(sed -n 's/^ "process_bytes": \([0-9]*\).*/\1/p' "$file")
        most=$(sed -n '/^   "planned": /,/^   }/s/^    "host_bytes": \([0-9]*\).*/\1/p' "$file" | sort -n | tail -n 1)
        value=$(sed -n 's/^   "host_rss_peak_bytes": \([0-9]*\).*/\1/p' "$file" | sort -n | tail -n 1)
        may=$((may + most - once))
        [ "$value" -le "$peak" ] || peak=$value
    done
    [ "$peak" -gt 0 ] && [ "$peak" -le $((once + may)) ] || fail "$1: $peak bytes in memory, $((once + may)) forecast"
    ok
}
same() { [ "$1" = "$2" ] || fail "$3: other videos"; ok; }

"$program" plan "${checkpoint[@]}" "${clip[@]}" --device "$device" --json >plan.json 2>err ||
    { grep -q -- '--device' err && cat err && exit 77; }

run 0 --json_path six.json --save_path one --num_inference_steps 3
calm=$(hashes one)
for n in 2 3; do
    for mode in lightweight beefy; do
        run 0 --json_path six.json --save_path "$n$mode" --num_inference_steps 3 --parallel_jobs $n --memory_mode $mode \
            --memory_report "$n$mode.json"
        holds_together "$n$mode" "$n"
        same "$(hashes "$n$mode")" "$calm" "$n at once, $mode"
        grep -q "\"parallel_jobs\": $n" "$n$mode/batch_report.json" || fail "the report does not say $n"
        grep -q "^$mode: .* $n jobs at once, each with a share" err || fail "the first line does not say $n"
    done
done

# One without a picture fails alone; more lanes than jobs are no more than jobs.
run 1 --json_path bad.json --save_path bad --num_inference_steps 3 --parallel_jobs 2
same "$(hashes bad)" "$(hashes one v3)" "one failed"
grep -q '5 done' out || fail "five are not done"
run 0 --json_path six.json --save_path few --num_inference_steps 3 --parallel_jobs 8 --only v1 v2
grep -q '"parallel_jobs": 2' few/batch_report.json || fail "more lanes than jobs"

# An interrupt in the middle of two: both stop, both go on from their last step.
background() {
    env --default-signal=INT "$program" batch "${checkpoint[@]}" "${clip[@]}" --device "$device" --json_path six.json \
        --save_path cut --num_inference_steps "$steps" --no_teacache --parallel_jobs 2 >out 2>err </dev/null &
    pid=$!
}
background
for _ in {1..6000}; do
    [ "$(grep -c 'v[12]\] denoise [4-9]/' err)" -ge 2 ] && grep -q 'v1\] denoise 4/' err && grep -q 'v2\] denoise 4/' err && break
    sleep 0.02
done
kill -INT $pid
rc=0
wait $pid || rc=$?
[ $rc -eq 130 ] || fail "an interrupt ends with $rc"
[ "$(grep -c '"state": "interrupted"' cut/batch_report.json)" = 2 ] || fail "not both were interrupted"
[ "$(find cut -name '.v*.steps' | wc -l)" = 2 ] || fail "not both can be gone on with"
ok
clip+=(--no_teacache)
run 0 --json_path six.json --save_path cut --num_inference_steps "$steps" --parallel_jobs 2 --only v1 v2
[ "$(grep -c '"steps_resumed": [1-9]' cut/batch_report.json)" = 2 ] || fail "not both went on"
run 0 --json_path six.json --save_path whole --num_inference_steps "$steps" --only v1 v2
same "$(hashes cut)" "$(hashes whole)" "gone on with"
clip=(--sample_size 64 64 --video_length 5)

# Killed in the middle of two, too, while they compute and while videos are written: nothing half-made has a name.
background_kill() {
    rm -rf killed
    "$program" batch "${checkpoint[@]}" "${clip[@]}" --device "$device" --json_path six.json --save_path killed \
        --num_inference_steps 3 --parallel_jobs 2 >out 2>err </dev/null &
    pid=$!
}
for moment in 'v2\] denoise 2/' 'v3\] denoise 1/' '.v?_output.*part*'; do
    background_kill
    for _ in {1..6000}; do
        case $moment in
        .*) [ -z "$(find killed -name "$moment" 2>/dev/null)" ] || break ;;
        *) ! grep -q "$moment" err || break ;;
        esac
        sleep 0.01
    done
    kill -9 $pid 2>/dev/null || true
    rc=0
    wait $pid 2>/dev/null || rc=$?
    [ $rc -eq 137 ] || fail "not killed at '$moment': $rc"
    half=$(hashes killed 2>/dev/null | grep -vxF "$calm" || true)
    [ -z "$half" ] || fail "half-made at '$moment': $half"
    run 0 --json_path six.json --save_path killed --num_inference_steps 3 --parallel_jobs 2
    same "$(hashes killed)" "$calm" "killed at '$moment'"
    [ -z "$(find killed -name '.*part*')" ] || fail "left over: $(find killed -name '.*part*')"
done

# Budgets: what plan names for two does for two; half of it is refused and says how many would fit.
"$program" plan "${checkpoint[@]}" "${clip[@]}" --device "$device" --num_inference_steps 3 --json >plan.json 2>err
"$program" plan "${checkpoint[@]}" "${clip[@]}" --device "$device" --num_inference_steps 3 --parallel_jobs 2 --json >plan2.json 2>err
number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$2" | head -1; }
one=$(number smallest_vram_budget_bytes plan.json) two=$(number smallest_vram_budget_bytes plan2.json)
[ "$two" -gt "$one" ] || fail "two need no more than one: $two, $one"
run 0 --json_path six.json --save_path tight --num_inference_steps 3 --parallel_jobs 2 --vram_budget "$two"
same "$(hashes tight)" "$calm" "a tight budget"
# A prompt that nobody encoded yet, as the plan has it.
run 1 --json_path six.json --save_path none --prompt new --num_inference_steps 3 --parallel_jobs 2 --vram_budget "$((two - 4096))"
grep -q 'parallel_jobs 1 leaves each of them enough' err || fail "a refusal does not say how many would fit"
run 0 --json_path six.json --save_path none --prompt new --num_inference_steps 3 --vram_budget "$((two - 4096))"
run 2 --json_path six.json --save_path none --parallel_jobs 9

# A full disk ends all lanes, long before the last job; with room again everything is made.
mkdir disk
jobs 16 >many.json
if mount -t tmpfs -o size=256k tmpfs disk 2>/dev/null; then
    run 4 --json_path many.json --save_path disk --num_inference_steps 3 --parallel_jobs 2
    grep -q '[1-9][0-9]* not started' out || fail "a full disk stopped nobody: $(tail -n 1 out)"
    mount -o remount,size=64m disk
    run 0 --json_path many.json --save_path disk --num_inference_steps 3 --parallel_jobs 2
    same "$(hashes disk 'v[789]_')" "$calm" "after a full disk"
fi
echo "$checks checks passed"
