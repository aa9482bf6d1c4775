#!/usr/bin/env bash
# What is finished stays finished: what makes a job another one and what does not; videos of unknown
# origin; failures that are tried again; a ledger that cannot be used; several processes, one folder.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
out=$tmp/v
cp "$face" "$tmp/face.png"
cp "$voice" "$tmp/voice.wav"
run() { # run RC FLAG...: the batch on the current list
    local rc=$1
    shift
    expect "$rc" batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 "$@"
}
state() { # state NAME: of the last report
    grep -A4 -F "\"output_name\": \"$1\"" "$out/batch_report.json" | sed -n 's/.*"state": "\(.*\)".*/\1/p'
}
is() { # is NAME STATE
    [ "$(state "$1")" = "$2" ] || fail "$1 is '$(state "$1")', '$2' was expected"
    checks=$((checks + 1))
}
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

# ---- the list's own folder comes first ----
list "$tmp/jobs.json" "$(job face.png voice.wav one)" "$(job face.png voice.wav two ', "seed": 7, "mood": 1')"
run 0
is one "done"
[ "$(ls "$XDG_CACHE_HOME/echomimic/prompts" | wc -l)" = 1 ] || fail "the encoded prompt is not kept"
cp "$out/one_output.mp4" "$tmp/one.mp4"
cp "$out/two_output.mp4" "$tmp/two.mp4"
grep -q '"audio_cut_seconds": 2.5' "$out/batch_report.json" || fail "the report hides that the sound was cut"
grep -q 's are cut' "$out/batch_report.json" || fail "the report lacks the warning"

# ---- what changes no frame makes no job another one ----
run 0 --memory_mode beefy --threads 1 --temp_dir "$tmp/t" --teacache_offload --negative_prompt x --guidance_scale 3
is one skipped
touch "$tmp/face.png" # another time, the same picture
run 0
is one skipped
same "$out/one_output.mp4" "$tmp/one.mp4"
touch "$out/..one_output.mp4.steps.part-99999" # a kill in the middle of writing a step
run 0 --quiet
is two skipped
[ ! -e "$out/..one_output.mp4.steps.part-99999" ] || fail "half a step of a finished job is left over"

# ---- what does: made anew, the older video is kept under another name ----
run 0 --only one --seed 44
says "seed 43, now seed 44"
is one "done"
same "$out/one_output.1.mp4" "$tmp/one.mp4"
! cmp -s "$out/one_output.mp4" "$tmp/one.mp4" || fail "another seed, the same video"
same "$out/two_output.mp4" "$tmp/two.mp4"
run 0 --only one
says "seed 44, now seed 43"
same "$out/one_output.mp4" "$tmp/one.mp4"
has "$out/one_output.2.mp4"
for flags in "--num_inference_steps 3" "--sampler_name Flow" "--weight_dtype float32" "--prompt hello" "--crf 30" \
    "--no_teacache" "--fps 24" "--audio_guidance_scale 2" "--device ref" "--rng cpu" "--color_transfer off"; do
    # shellcheck disable=SC2086 # the words are the arguments
    expect 0 batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 --dry_run --only one $flags
    grep -q "to do: 5 frames of 48 x 64" "$tmp/out" || fail "$flags makes no difference"
done
head -c 100000 /dev/zero >>"$tmp/voice.wav" # the sound is another file
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 --dry_run --only one
grep -q "to do" "$tmp/out" || fail "another sound makes no difference"
cp "$voice" "$tmp/voice.wav"
rm "$out"/one_output.[12].mp4

# ---- files and records that do not agree ----
rm "$out/one_output.mp4"
run 0
says "is gone"
is one "done"
is two skipped
same "$out/one_output.mp4" "$tmp/one.mp4"
head -c 2000 "$tmp/one.mp4" >"$out/one_output.mp4"
run 0
says "made anew"
same "$out/one_output.mp4" "$tmp/one.mp4"
cp "$tmp/two.mp4" "$out/one_output.mp4" # whole, and not what was recorded: somebody's
run 0
says "made by somebody else"
is one skipped
same "$out/one_output.mp4" "$tmp/two.mp4"
run 0 --seed 50 # recorded as found: whatever the settings, it is left alone
is one skipped
run 0 --force --only one
is one "done"
same "$out/one_output.mp4" "$tmp/one.mp4"
rm "$out"/echomimic.db*
run 0 # a folder of the older tool
is two skipped
says "made by somebody else"

# ---- a dry run touches nothing ----
rm -rf "$out"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$out" --dry_run
lacks "$out"
grep -qE '2 to do.*about .*memory at most' "$tmp/out" || fail "$(tail -1 "$tmp/out")"

# ---- failures, and trying them again ----
list "$tmp/jobs.json" "$(job face.png voice.wav one)" "$(job later.png voice.wav two)" "$(job face.png voice.wav three)"
run 1 --only one two
is two failed
cp "$face" "$tmp/later.png"
run 0 --retry_failed
is two "done"
is one skipped
is three "not started"
lacks "$out/three_output.mp4"
expect 2 batch --json_path "$tmp/jobs.json" --save_path "$out" --only thre
says "did you mean 'three'"

# ---- a ledger that cannot be used ----
cp "$out/echomimic.db" "$tmp/good.db"
seq -w 1000 | dd of="$out/echomimic.db" conv=notrunc bs=1 seek=4096 status=none
run 3
says "echomimic.db"
says "damaged"
echo "not a database at all, but a letter to somebody" >"$out/echomimic.db"
run 3
says "not a ledger"
has "$out/one_output.mp4"
cp "$tmp/good.db" "$out/echomimic.db"
run 0
is three "done"

# ---- several processes ----
items=()
for i in {1..9}; do items+=("$(job face.png voice.wav "s$i" ", \"seed\": $i")"); done
list "$tmp/jobs.json" "${items[@]}"
rm -rf "$out"
pids=()
for i in 1 2 3; do
    batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 --shard "$i/3" --quiet >"$tmp/shard$i" 2>&1 &
    pids+=($!)
done
for p in "${pids[@]}"; do wait "$p" || fail "a shard failed: $(cat "$tmp"/shard?)"; done
made=$(cat "$out"/batch_report.*-of-3.json | grep -c '"state": "done"')
[ "$made" = 9 ] || fail "three shards made $made videos of 9"
[ "$(cat "$out"/batch_report.*-of-3.json | grep '"output_name"' | sort -u | wc -l)" = 9 ] || fail "shards overlap"
run 0
[ "$(grep -c '"state": "skipped"' "$out/batch_report.json")" = 9 ] || fail "the whole list does not know its shards"
for bad in 0/3 4/3 1 1/0 a/b 1/3x; do
    expect 2 batch --json_path "$tmp/jobs.json" --save_path "$out" --shard "$bad"
    says "--shard"
done
rm -rf "$out"
batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 >"$tmp/twin" 2>&1 & # started twice by mistake
first=$!
second=0
batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 >"$tmp/twin2" 2>&1 || second=$?
wait $first || true
grep -q 'another process\|is finished' "$tmp/twin" "$tmp/twin2" || fail "two processes did not see each other"
run 0
[ "$(ls "$out"/*_output.mp4 | wc -l)" = 9 ] || fail "two processes left $(ls "$out")"
clean "$out"
passed
