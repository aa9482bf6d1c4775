#!/usr/bin/env bash
# A batch of two jobs and a single one: what is in the videos, what is in the report, and that the
# same job gives the same bytes whatever the threads.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"

probe() { ffprobe -v error -select_streams "$2" -show_entries "stream=$3" -of csv=p=0 "$1"; }

list "$tmp/jobs.json" "$(job "$face" "$voice" one)" \
    "$(job "$share/demo/otto.png" "$share/demo/otto.wav" two ', "seed": 7, "video_length": 5')"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a"
says "--video_length"
grep -q '2 done' "$tmp/out" || fail "the summary does not count two"

one=$tmp/a/one_output.mp4 two=$tmp/a/two_output.mp4
[ "$(probe "$one" v codec_name,pix_fmt,r_frame_rate,nb_frames)" = "h264,yuv420p,25/1,9" ] ||
    fail "$(probe "$one" v codec_name,pix_fmt,r_frame_rate,nb_frames)"
[ "$(probe "$one" v duration)" = "0.360000" ] || fail "picture: $(probe "$one" v duration)"
[ "$(probe "$one" a codec_name,duration)" = "aac,0.360000" ] || fail "sound: $(probe "$one" a codec_name,duration)"
[ "$(probe "$two" v nb_frames)" = 5 ] || fail "the job's own video_length has no effect"
clean "$tmp/a"

report=$tmp/a/batch_report.json
for key in '"state": "done"' '"forwards": 4' '"seed": 7' '"peak_scratch_bytes"' '"denoise"' '"frames": 5'; do
    grep -qF "$key" "$report" || fail "the report lacks $key"
done

# Again: finished videos are left alone, unless --force; then they are the same, byte for byte.
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a"
grep -q '2 skipped' "$tmp/out" || fail "finished videos are not skipped"
cp "$one" "$tmp/first.mp4"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a" --force --threads 1
cmp "$one" "$tmp/first.mp4" || fail "the same job, other bytes"
head -c 2000 "$tmp/first.mp4" >"$one"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a" --memory-mode beefy
says "made anew"
cmp "$one" "$tmp/first.mp4" || fail "half a video was taken for a whole one"

# A single job: its default name, flags with dashes, a file of flags, JSON lines.
echo "num_inference_steps: 2" >"$tmp/flags.yaml"
expect 0 "$program" run "${where[@]}" --image "$face" --audio "$voice" --save-path "$tmp/b" \
    --sample-size 64 64 --video_length=9 --config "$tmp/flags.yaml" --log-json --use_dynamic_cfg
cmp "$tmp/b/ada_output.mp4" "$tmp/first.mp4" || fail "run and batch disagree"
says '"stage": "denoise", "done": 2, "total": 2'
says "without effect here: --use_dynamic_cfg"
expect 0 "$program" plan "${where[@]}" "${quick[@]}" --json
grep -q '"scratch_bytes"' "$tmp/out" || fail "plan prints no JSON"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/c" --dry_run
lacks "$tmp/c"
passed
