#!/usr/bin/env bash
# A build without FFmpeg, oneDNN and libcurl: PPM and WAV in, Y4M and WAV out, under names of their own;
# finished ones are found again, half ones are not taken for whole; what it cannot do it says.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"

{
    printf 'P6\n# a gradient\n64 64\n255\n'
    for ((i = 0; i < 64 * 64; i++)); do printf '%s' "A$((i % 10))z"; done
} >"$tmp/face.ppm"

list "$tmp/jobs.json" "$(job "$tmp/face.ppm" "$voice" one)"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a"
one=$tmp/a/one_output.y4m
has "$one"
has "$tmp/a/one_output.wav"
clean "$tmp/a"
lacks "$tmp/a/one_output.mp4"
header=$(head -n 1 "$one")
[ "$header" = "YUV4MPEG2 W64 H64 F25:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED" ] || fail "$header"
size=$(stat -c %s "$one") want=$((${#header} + 1 + 9 * (6 + 64 * 64 * 3 / 2)))
[ "$size" -eq "$want" ] || fail "$size bytes, expected $want"

expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a"
grep -q '1 skipped' "$tmp/out" || fail "a finished video is not skipped"
cp "$one" "$tmp/first.y4m"
head -c 2000 "$tmp/first.y4m" >"$one"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/a" --threads 1
says "made anew"
cmp "$one" "$tmp/first.y4m" || fail "the same job, other bytes"

expect 0 "$program" run "${where[@]}" "${quick[@]}" --image "$tmp/face.ppm" --audio "$voice" \
    --output "$tmp/b/out.mp4" || true
cmp "$tmp/b/out.y4m" "$tmp/first.y4m" || fail "run and batch disagree"

list "$tmp/far.json" "$(job "https://example.invalid/a.png?secret=1" "$voice" far)"
expect 1 batch --json_path "$tmp/far.json" --save_path "$tmp/c"
says "EM_NET=ON"
if grep -q secret "$tmp/err"; then fail "a secret is printed"; fi
passed
