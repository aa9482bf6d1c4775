#!/usr/bin/env bash
# Media behind addresses, videos delivered to addresses: a server on loopback that misbehaves on
# request (tests/net/server.h tells how). Every address carries a secret, and no secret is found in
# anything that is written.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
net_server=$(readlink -f "$3")
out=$tmp/v
root=$tmp/root
mkdir "$root"
cp "$face" "$voice" "$root/"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$tmp"' EXIT

serve() { # serve NAME: a server of its own; $port, and its counts in $tmp/NAME when it has ended
    : >"$tmp/$1"
    "$net_server" "$root" 300 >"$tmp/$1" &
    server=$!
    for _ in {1..100}; do [ -s "$tmp/$1" ] && break || sleep 0.05; done
    port=$(head -1 "$tmp/$1")
    [ -n "$port" ] || fail "the server does not start"
}
count() { # count NAME WORD: ends the server, says how many
    kill "$server"
    for _ in {1..100}; do grep -q '^puts' "$tmp/$1" && break || sleep 0.05; done
    sed -n "s/^$2 //p" "$tmp/$1"
}
at() { echo "http://127.0.0.1:$port/$1?X-Amz-Signature=PLANTED-$2"; }
item() { # item NAME IMAGE-STEPS AUDIO-STEPS [REST]
    job "$(at "$2/$1/ada.png" "image-$1")" "$(at "$3/$1/ada.wav" "audio-$1")" "$1" "${4:-}"
}
run() { # run RC FLAG...
    local rc=$1
    shift
    expect "$rc" batch --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 --allow_private 127.0.0.0/8 "$@"
    no_secret "$tmp/out" "$tmp/err" "$out"
}
no_secret() { # in files and folders: contents and names
    ! grep -rlasF PLANTED "$@" || fail "a secret was written"
    ! find "$@" 2>/dev/null | grep -F PLANTED || fail "a secret in a name"
    checks=$((checks + 1))
}
state() { # state NAME: of the last report
    grep -A4 -F "\"output_name\": \"$1\"" "$out/batch_report.json" | sed -n 's/.*"state": "\(.*\)".*/\1/p'
}
is() { # is NAME STATE
    [ "$(state "$1")" = "$2" ] || fail "$1 is '$(state "$1")', '$2' was expected"
    checks=$((checks + 1))
}

# ---- what the videos must be: from files ----
list "$tmp/jobs.json" "$(job "$face" "$voice" file)"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/files" --video_length 5
made=$tmp/files/file_output.mp4

# ---- good and faulty addresses in one list ----
serve first
list "$tmp/jobs.json" "$(item plain s/ok -/chunked)" "$(item again -/503=0,reset,ok s/cut,ok)" \
    "$(item page -/html -/ok)" "$(item gone -/404 -/ok)" "$(item bomb -/gzip -/ok)" "$(item loop -/ok -/hop)" \
    "$(job "$(at -/ok/old/ada.png old | sed 's/X-Amz-Sig/X-Amz-Date=20240501T110000Z\&X-Amz-Expires=3600\&X-Amz-Sig/')" \
        "$voice" old)" \
    "$(job "$(at s/ok/plain/ada.png image-plain)" "$(at -/chunked/plain/ada.wav audio-plain)" twin ', "seed": 7')"
run 0 --dry_run
lacks "$out"
mkdir "$tmp/fetched" "$out"
run 1 --temp_dir "$tmp/fetched" --keep_temp --log_json
no_secret "$tmp/fetched"
for name in plain again twin; do is "$name" "done"; done
for name in page gone bomb loop old; do
    is "$name" failed
    lacks "$out/${name}_output.mp4"
done
for word in "is an HTML page" "the server answers 404" "comes compressed (gzip)" "more than 5 redirects" \
    "the signature expired at 2024-05-01 12:00:00 UTC"; do
    says "$word"
    grep -qF "$word" "$out/batch_report.json" || fail "the report does not say '$word'"
done
cmp "$out/plain_output.mp4" "$made" || fail "from an address, another video"
cmp "$out/again_output.mp4" "$made" || fail "after retries, another video"
clean "$out"

# A user and a password are secrets too, in a list that is refused as well as in one that runs.
sed 's|http://127.0.0.1|ftp://PLANTED-u:PLANTED-p@127.0.0.1|' "$tmp/jobs.json" >"$tmp/ftp.json"
expect 2 batch --json_path "$tmp/ftp.json" --save_path "$tmp/w" --allow_private 127.0.0.0/8
says "ftp://127.0.0.1"
no_secret "$tmp/err" "$tmp/out" "$tmp/w"
expect 1 "$program" run "${where[@]}" "${quick[@]}" --image "$(at -/410/solo/ada.png solo | sed 's|//|//PLANTED-u:PLANTED-p@|')" \
    --audio "$voice" --save_path "$tmp/w" --allow_private 127.0.0.1
says "the server answers 410"
no_secret "$tmp/err" "$tmp/out" "$tmp/w"
expect 0 "$program" run "${where[@]}" "${quick[@]}" --image "$(at -/ok/solo/ada.png solo)" --audio "$(at -/ok/solo/ada.wav solo)" \
    --output "$tmp/solo.mp4" --video_length 5 --allow_private 127.0.0.1
cmp "$tmp/solo.mp4" "$made" || fail "a single job from addresses, another video"
no_secret "$tmp/err" "$tmp/out"

# What is finished is not fetched again, whatever its signature is now; what failed is.
sed -i 's/PLANTED-/PLANTED-anew-/' "$tmp/jobs.json"
run 1
is plain skipped
is page failed
# plain: 1 + 1; again: 3 + 2; page, gone, bomb: 1 + 1; loop: 1 + 6; twin: as plain; old: untried. The single jobs: 1, 1 + 1.
# Then the failed ones again.
requests=$(count first requests)
[ "$requests" -eq $((2 + 5 + 6 + 7 + 3 + 6 + 7)) ] || fail "$requests requests"

# ---- killed in the middle: the ledger's log is still there to look into ----
serve second
list "$tmp/jobs.json" "$(item quick -/ok -/ok)" "$(item hung -/ok -/stall ', "prompt": "later"')"
rm -rf "$out"
expect 137 bash -c '"$@" & for _ in {1..400}; do [ -e "'"$out"'/quick_output.mp4" ] && break || sleep 0.1; done; kill -9 $!; wait $!' _ \
    "$program" batch "${where[@]}" "${quick[@]}" --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 \
    --allow_private 127.0.0.0/8 --temp_dir "$tmp/fetched"
has "$out/quick_output.mp4"
has "$out/echomimic.db-wal"
no_secret "$out" "$tmp/fetched" "$tmp/out" "$tmp/err" "$tmp/cache"

# ---- interrupted while a server keeps us waiting ----
start=$(date +%s)
expect 130 bash -c '"$@" & sleep 2; kill -INT $!; wait $!' _ "$program" batch "${where[@]}" "${quick[@]}" \
    --json_path "$tmp/jobs.json" --save_path "$out" --video_length 5 --allow_private 127.0.0.0/8
[ $(($(date +%s) - start)) -le 12 ] || fail "an interrupt was not heard within 10 s"
no_secret "$out" "$tmp/err"
count second requests >/dev/null

# ---- delivery ----
serve third
upload() { echo ", \"upload_url\": \"$(at "-/$1/$2.mp4" "upload-$2")\""; }
list "$tmp/jobs.json" "$(job "$face" "$voice" one "$(upload ok one)")" \
    "$(job "$face" "$voice" two ", \"seed\": 2$(upload 503=0,mid,ok two)")" \
    "$(job "$face" "$voice" three ", \"seed\": 3$(upload 403,404,ok three)")"
rm -rf "$out"
run 1
is one "done"
is two "done"
is three "made, not delivered"
says "made, not delivered"
says "answers 403"
cmp "$out/one_output.mp4" "$root/one.mp4" || fail "what was delivered is not the video"
cmp "$out/two_output.mp4" "$root/two.mp4" || fail "what was delivered after retries is not the video"
lacks "$root/three.mp4"
# Nothing is made again; only the missing upload is tried, with a new signature.
cp -p "$out/three_output.mp4" "$tmp/three.mp4"
rm "$root/one.mp4"
sed -i 's/PLANTED-/PLANTED-anew-/' "$tmp/jobs.json"
run 1 --retry_failed
is three "made, not delivered"
says "answers 404"
run 0 --retry_failed
cmp "$out/three_output.mp4" "$root/three.mp4" || fail "what was delivered later is not the video"
[ ! "$out/three_output.mp4" -nt "$tmp/three.mp4" ] || fail "the video was made again"
! grep -q denoise "$tmp/err" || fail "something was made again"
lacks "$root/one.mp4" # delivered once is delivered
run 0
requests=$(count third requests)
[ "$requests" -eq $((1 + 3 + 3)) ] || fail "$requests uploads"

# ---- not without being told: no connection is made ----
serve fourth
list "$tmp/jobs.json" "$(item plain -/ok -/ok)"
expect 2 batch --json_path "$tmp/jobs.json" --save_path "$tmp/w"
says "--allow_private"
no_secret "$tmp/err" "$tmp/out"
sed 's/http:/https:/g' "$tmp/jobs.json" >"$tmp/https.json"
expect 1 batch --json_path "$tmp/https.json" --save_path "$tmp/w"
says "which is no public address: refused (--allow_private"
no_secret "$tmp/err" "$tmp/out" "$tmp/w"
rm -rf "$out"
expect 1 batch --json_path "$tmp/jobs.json" --save_path "$out" --allow_private 10.0.0.0/8
says "that is for networks that --allow_private names"
no_secret "$tmp/err" "$tmp/out" "$out"
for net in 10.0.0.1/8 300.0.0.0/8 localhost 10.0.0.0/33; do
    expect 2 batch --json_path "$tmp/jobs.json" --save_path "$out" --allow_private "$net"
    says "--allow_private"
    says "$net"
done
connections=$(count fourth connections)
[ "$connections" -eq 0 ] || fail "$connections connections"
passed
