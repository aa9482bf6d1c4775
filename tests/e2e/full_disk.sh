#!/usr/bin/env bash
# A full disk: the running job fails, no new one starts, nothing partial has a final name.
# Needs a file system of its own, and so the right to mount one; skipped without.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
disk=$tmp/disk
mkdir "$disk"
if ! mount -t tmpfs -o size=256k tmpfs "$disk" 2>/dev/null; then
    echo "skipped: a small file system cannot be mounted here"
    exit 77
fi
trap 'umount "$disk"; rm -rf "$tmp"' EXIT

list "$tmp/jobs.json" "$(job "$face" "$voice" one)" "$(job "$face" "$voice" two)"
expect 4 batch --json_path "$tmp/jobs.json" --save_path "$disk"
says "space"
lacks "$disk/one_output.mp4"
lacks "$disk/two_output.mp4"
clean "$disk"
grep -q '1 failed' "$tmp/out" || fail "two jobs were started"
expect 4 "$program" synth --size tiny --out "$disk/model"
says "needs"
clean "$disk"
passed
