#!/usr/bin/env bash
# Ctrl-C and SIGTERM in the middle of a job: exit status 130, within ten seconds, nothing half-made is
# left; the next run goes on from the last step. A second signal ends the program at once.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"

# start FLAG...: the batch in the background, its process in $pid. A background process of a shell
# ignores SIGINT: env gives it back.
start() {
    rm -f "$tmp/err"
    env --default-signal=INT "$program" batch "${where[@]}" --json_path "$tmp/jobs.json" \
        --save_path "$tmp/v" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null &
    pid=$!
}
until_it_says() {
    for _ in {1..1200}; do
        grep -qs -- "$1" "$tmp/err" && return
        sleep 0.05
    done
    fail "the program never said '$1'"
}
ends_with() { # ends_with RC SECONDS
    local rc=0 start=$SECONDS
    wait "$pid" || rc=$?
    [ $rc -eq "$1" ] || fail "exit status $rc, expected $1"
    [ $((SECONDS - start)) -le "$2" ] || fail "it took $((SECONDS - start)) s to stop"
    checks=$((checks + 1))
}

list "$tmp/jobs.json" "$(job "$face" "$voice" one)" "$(job "$face" "$voice" two)"
long=(--sample_size 128 128 --video_length 49 --num_inference_steps 1000 --no_teacache) # minutes
for signal in INT TERM; do
    rm -rf "$tmp/v"
    start "${long[@]}"
    until_it_says 'denoise 2/'
    kill "-$signal" "$pid"
    ends_with 130 10
    lacks "$tmp/v/one_output.mp4"
    lacks "$tmp/v/two_output.mp4"
    clean "$tmp/v"
    grep -q '1 not started' "$tmp/out" || fail "SIG$signal: the second job was started"
    grep -q '"state": "interrupted"' "$tmp/v/batch_report.json" || fail "SIG$signal: the report does not say so"
done

# Stopped in the middle, the video is in the end the one of an undisturbed run.
short=(--sample_size 64 64 --video_length 5 --num_inference_steps 200 --no_teacache) # a second or more
expect 0 "$program" batch "${where[@]}" --json_path "$tmp/jobs.json" --save_path "$tmp/calm" "${short[@]}"
rm -rf "$tmp/v"
start "${short[@]}"
until_it_says 'denoise 4/'
kill -TERM "$pid"
ends_with 130 10
start "${short[@]}"
ends_with 0 600
resumed=$(sed -n 's/.*"steps_resumed": \([0-9]*\).*/\1/p' "$tmp/v/batch_report.json" | head -1)
[ "$resumed" -ge 3 ] || fail "$resumed steps were spared, at least 3 were expected"
for name in one two; do
    cmp "$tmp/v/${name}_output.mp4" "$tmp/calm/${name}_output.mp4" || fail "$name differs from the undisturbed run's"
done
[ -z "$(find "$tmp/v" -name '*.steps')" ] || fail "the checkpoint of a finished job is left over"

# While it loads, too.
list "$tmp/jobs.json" "$(job "$face" "$voice" three)"
start "${long[@]}"
until_it_says 'Device'
kill -TERM "$pid"
ends_with 130 10

# The second signal does not wait for anything.
start "${long[@]}"
until_it_says 'denoise 1/'
kill -TERM "$pid"
kill -TERM "$pid" 2>/dev/null || true
ends_with 130 2
passed
