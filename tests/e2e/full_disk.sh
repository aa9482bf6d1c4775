#!/usr/bin/env bash
# A full disk, at many sizes: the running job fails, no new one starts, nothing partial has a final
# name, the ledger goes on; and when there is room again, everything is made.
# Needs a file system of its own, and so the right to mount one; skipped without.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
disk=$tmp/disk
mkdir "$disk"
if ! mount -t tmpfs -o size=64k tmpfs "$disk" 2>/dev/null; then
    echo "skipped: a small file system cannot be mounted here"
    exit 77
fi
trap 'umount "$disk"; rm -rf "$tmp"' EXIT
room() { mount -o "remount,size=$1k" "$disk"; }
run() { batch --json_path "$tmp/jobs.json" --save_path "$disk" --video_length 5 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null; }

list "$tmp/jobs.json" "$(job "$face" "$voice" one)" "$(job "$face" "$voice" two)" "$(job "$face" "$voice" three)"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/calm" --video_length 5

tried=0 full=0
for size in $(seq 64 24 400); do
    rm -rf "${disk:?}"/* "$disk"/.[!.]*
    room "$size"
    rc=0
    run --quiet || rc=$?
    [ $rc -eq 4 ] || [ $rc -eq 0 ] || fail "$size KiB: exit status $rc, expected 4"
    for name in one two three; do
        [ ! -e "$disk/${name}_output.mp4" ] || cmp "$disk/${name}_output.mp4" "$tmp/calm/${name}_output.mp4" ||
            fail "$size KiB: a partial video has a final name"
    done
    tried=$((tried + 1))
    [ $rc -eq 4 ] || break
    full=$((full + 1))
    says "space"
    clean "$disk"
    [ "$(grep -c '^error: \[' "$tmp/err")" -le 1 ] || fail "$size KiB: another job was started"
    room 4000
    run --quiet || fail "$size KiB: exit status $? when there was room again: $(cat "$tmp/err")"
    for name in one two three; do
        cmp "$disk/${name}_output.mp4" "$tmp/calm/${name}_output.mp4" || fail "$name is not made when there is room again"
    done
    clean "$disk"
done
echo "$tried sizes, full at $full of them"
[ "$full" -ge 6 ] || fail "the disk was full at $full sizes only"

# The failure reaches the ledger although the disk is full: --retry_failed knows of it.
rm -rf "${disk:?}"/* "$disk"/.[!.]*
room 4000
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$disk" --video_length 5 --only one
cat /dev/zero >"$disk/ballast" 2>/dev/null || true
truncate -s -140K "$disk/ballast" # enough to open the ledger, not for a large video
large=(--sample_size 512 512 --video_length 9 --crf 0 --json_path "$tmp/jobs.json" --save_path "$disk")
expect 4 batch "${large[@]}" --only two
says "space"
rm "$disk/ballast"
expect 0 batch "${large[@]}" --retry_failed
has "$disk/two_output.mp4"
lacks "$disk/three_output.mp4"
rm -rf "${disk:?}"/* "$disk"/.[!.]*
room 100
expect 4 "$program" synth --size tiny --out "$disk/model"
says "needs"
clean "$disk"
passed
