# What every end-to-end test begins with: `. lib.sh PROGRAM SHARE` makes a folder of its own ($tmp,
# removed at the end), a tiny synthetic checkpoint in it, and these:
#
#   batch FLAG...          the program's batch with the checkpoint, small and quick
#   expect RC COMMAND...   runs it, output to $tmp/out and $tmp/err; fails on another exit status
#   says TEXT              the last command's stderr holds TEXT
#   has FILE / lacks FILE  exists, does not exist
#   clean DIR              no left-over of an unfinished file in it
program=$(readlink -f "$1")
share=$(readlink -f "$2")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache # where encoded prompts are kept
checks=0

fail() {
    echo "FAIL: $*"
    [ -s "$tmp/err" ] && sed 's/^/    /' "$tmp/err"
    exit 1
}

expect() {
    local want=$1 rc=0
    shift
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
    [ "$rc" -eq "$want" ] || fail "'$*' ended with $rc, expected $want"
    checks=$((checks + 1))
}

says() {
    grep -qF -- "$1" "$tmp/err" || fail "stderr does not say '$1'"
    checks=$((checks + 1))
}

has() { [ -e "$1" ] || fail "there is no $1"; }
lacks() { [ ! -e "$1" ] || fail "there is $1"; }

clean() {
    local left
    left=$(find "$1" -name '.*part*')
    [ -z "$left" ] || fail "left over: $left"
}

passed() { echo "$checks checks passed"; }

model=$tmp/model
expect 0 "$program" synth --size tiny --out "$model"
where=(--config_path "$model/config.yaml" --model_name "$model/Wan2.1-Fun-V1.1-1.3B-InP"
    --transformer_path "$model/transformer/diffusion_pytorch_model.safetensors"
    --wav2vec_model_dir "$model/chinese-wav2vec2-base")
quick=(--sample_size 64 64 --video_length 9 --num_inference_steps 2)

batch() { "$program" batch "${where[@]}" "${quick[@]}" "$@"; }

# list FILE ITEM...: a job list of these JSON objects, one a line.
list() {
    local file=$1 comma=''
    shift
    echo "[" >"$file"
    for item in "$@"; do
        printf '%s%s' "$comma" "$item" >>"$file"
        comma=$',\n'
    done
    printf '\n]\n' >>"$file"
}

# job IMAGE AUDIO NAME [REST]: one such object.
job() { echo "{\"portrait_image\": \"$1\", \"portrait_audio\": \"$2\", \"output_name\": \"$3\"${4:-}}"; }

face=$share/demo/ada.png
voice=$share/demo/ada.wav
