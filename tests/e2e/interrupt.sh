#!/usr/bin/env bash
# Ctrl-C and SIGTERM in the middle of a job: exit status 130, soon, and nothing half-made is left.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"

list "$tmp/jobs.json" "$(job "$face" "$voice" one)" "$(job "$face" "$voice" two)"
for signal in INT TERM; do
    rm -rf "$tmp/v" "$tmp/err"
    # Enough steps for minutes. A background process of a shell ignores SIGINT: env gives it back.
    env --default-signal=INT "$program" batch "${where[@]}" --sample_size 128 128 --video_length 49 \
        --num_inference_steps 1000 --no_teacache --json_path "$tmp/jobs.json" --save_path "$tmp/v" \
        >"$tmp/out" 2>"$tmp/err" </dev/null &
    pid=$!
    for _ in {1..600}; do
        grep -qs denoise "$tmp/err" && break
        sleep 0.1
    done
    kill "-$signal" $pid
    rc=0
    wait $pid || rc=$?
    [ $rc -eq 130 ] || fail "SIG$signal: exit status $rc, expected 130"
    lacks "$tmp/v/one_output.mp4"
    lacks "$tmp/v/two_output.mp4"
    clean "$tmp/v"
    grep -q '1 not started' "$tmp/out" || fail "SIG$signal: the second job was started"
    checks=$((checks + 1))
done
passed
