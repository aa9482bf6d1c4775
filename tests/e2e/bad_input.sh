#!/usr/bin/env bash
# Whatever is wrong with the input: the exit status, a sentence that names the file or the flag, and
# nothing under a final name.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
out=$tmp/videos

# ---- media: that job fails, the other one runs ----
le32() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x00"; }
wav() { # wav SAMPLES: 16 kHz, mono, silence
    printf 'RIFF'; le32 $((36 + 2 * $1)); printf 'WAVEfmt '; le32 16
    printf '\x01\x00\x01\x00'; le32 16000; le32 32000; printf '\x02\x00\x10\x00data'; le32 $((2 * $1))
    head -c $((2 * $1)) /dev/zero
}
echo "this is a letter, not a portrait" >"$tmp/text.png"
: >"$tmp/empty.png"
: >"$tmp/empty.wav"
head -c 3000 "$face" >"$tmp/cut.png"
head -c 3000 "$voice" >"$tmp/cut.wav"
base64 -d >"$tmp/small.png" <<<"iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mNwSGjAihiGlgQAEmxIAdLKhDoAAAAASUVORK5CYII=" # 8 x 8 pixels
wav 0 >"$tmp/nothing.wav"
wav 100 >"$tmp/blip.wav"
mkdir -p "$tmp/folder"

for bad in missing.png text.png empty.png cut.png small.png folder; do
    rm -rf "$out"
    list "$tmp/jobs.json" "$(job "$tmp/$bad" "$voice" bad)" "$(job "$face" "$voice" good)"
    expect 1 batch --json_path "$tmp/jobs.json" --save_path "$out"
    says "$bad"
    [ $bad != small.png ] || says "8 x 8"
    lacks "$out/bad_output.mp4"
    has "$out/good_output.mp4"
    clean "$out"
done
for bad in missing.wav text.png empty.wav cut.wav nothing.wav blip.wav; do
    rm -rf "$out"
    list "$tmp/jobs.json" "$(job "$face" "$tmp/$bad" bad)" "$(job "$face" "$voice" good)"
    expect 1 batch --json_path "$tmp/jobs.json" --save_path "$out"
    says "$bad"
    lacks "$out/bad_output.mp4"
    has "$out/good_output.mp4"
    clean "$out"
done
grep -qF '"state": "failed"' "$out/batch_report.json" || fail "the report hides the failure"
# An address of this machine, and one whose server is not there: refused without a connection.
list "$tmp/jobs.json" "$(job "https://127.0.0.1:1/a.png?sig=secret" "$voice" far)"
expect 1 batch --json_path "$tmp/jobs.json" --save_path "$out"
says "private"
! grep -rqF secret "$tmp/err" "$out/batch_report.json" || fail "a signature was shown"
# Silence and a single frame are legal.
rm -rf "$out"
wav 700 >"$tmp/frame.wav"
list "$tmp/jobs.json" "$(job "$face" "$tmp/frame.wav" still)"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$out"
says "still"

# ---- lists: nothing starts, all problems at once ----
bad_list() { # bad_list TEXT-OF-LIST WORD...
    local text=$1
    shift
    rm -rf "$out"
    printf '%s\n' "$text" >"$tmp/jobs.json"
    expect 2 batch --json_path "$tmp/jobs.json" --save_path "$out"
    for word in "$@"; do says "$word"; done
    lacks "$out"
}
good=$(job "$face" "$voice" good)
bad_list '{"portrait_image": "a"}' "list"
bad_list '[1, 2' "line"
bad_list "[$good, 7]" "item 2"
bad_list "[$good, {\"portrait_audio\": \"x\"}]" "item 2" "portrait_image"
bad_list "[{\"portrait_image\": 3, \"portrait_audio\": \"\"}]" "portrait_image" "portrait_audio"
bad_list "[$good,
$good]" "item 2 (line 2)" "good"
for name in ../x /x "" a/b . -x "$(printf 'n%.0s' {1..300})"; do
    bad_list "[$(job "$face" "$voice" "$name")]" "output_name" "item 1"
done
bad_list "[$(job "$face" "$voice" x ', "video_length": 0')]" "video_length" "4093"
bad_list "[$(job "$face" "$voice" x ', "seed": -1, "sample_size": [8, 64]')]" "seed" "sample_size"
bad_list "[$(job http://example.com/a.png "$voice" x)]" "https"
expect 2 batch --json_path "$tmp/nowhere.json" --save_path "$out"
says "nowhere.json"
printf '[\n%s,\n7\n]\n' "$(job "$face" "$voice" good ', "sedd": 3')" >"$tmp/jobs.json"
expect 1 batch --json_path "$tmp/jobs.json" --save_path "$out" --skip_invalid
says "did you mean 'seed'"
says "item 2 (line 3)"
has "$out/good_output.mp4"
echo '[]' >"$tmp/jobs.json"
expect 3 batch --json_path "$tmp/jobs.json" --save_path "$out"
says "no usable job"

# ---- flags ----
rm -rf "$out"
list "$tmp/jobs.json" "$good"
for flags in "--video_length 0" "--video_length 4094" "--num_inference_steps 0" "--seed -1" "--fps 121" \
    "--guidance_scale 101" "--crf 52" "--sample_size 8 64" "--weight_dtype int8" "--device cuda" "--cfg_skip_ratio 2"; do
    # shellcheck disable=SC2086 # the words are the arguments
    expect 2 batch --json_path "$tmp/jobs.json" --save_path "$out" $flags
    says "${flags%% *}"
done
expect 2 batch --json_path "$tmp/jobs.json" --vidio_length 5 --fps 0
says "did you mean --video_length"
says "--fps"
expect 2 "$program" batch
says "--json_path"
says "--model_name"
expect 2 "$program" bach
expect 2 "$program" run "${where[@]}" --image "$face" --audio "$voice" --lora_path x.safetensors
says "--lora_path"
lacks "$out"

# ---- checkpoints and folders: nothing can run ----
flash=$model/transformer/diffusion_pytorch_model.safetensors
broken() { # broken FILE WORD...: batch with FILE as transformer
    local file=$1
    shift
    expect 3 batch --json_path "$tmp/jobs.json" --save_path "$out" --transformer_path "$file"
    for word in "$@"; do says "$word"; done
}
sed 's/"blocks.1.ffn.0.weight"/"blocks.1.ffn.9.weight"/' "$flash" >"$tmp/renamed.safetensors"
broken "$tmp/renamed.safetensors" "blocks.1.ffn.0.weight" "missing"
head -c 100000 "$flash" >"$tmp/cut.safetensors"
broken "$tmp/cut.safetensors" "cut.safetensors"
broken "$tmp/nowhere.safetensors" "nowhere.safetensors"
vae=$model/Wan2.1-Fun-V1.1-1.3B-InP/Wan2.1_VAE.safetensors
broken "$vae" "'$vae' is a checkpoint of the vae, the transformer's was expected"
sed 's/"ffn_dim": 512/"ffn_dim": 640/' -i "$model/Wan2.1-Fun-V1.1-1.3B-InP/config.json"
broken "$flash" "blocks.0.ffn.0.weight" "640"
sed 's/"ffn_dim": 640/"ffn_dim": 512/' -i "$model/Wan2.1-Fun-V1.1-1.3B-InP/config.json"
: >"$tmp/file"
expect 3 batch --json_path "$tmp/jobs.json" --save_path "$tmp/file"
says "--save_path"
expect 3 batch --json_path "$tmp/jobs.json" --save_path "$out" --model_name "$tmp/none"
says "$tmp/none"
expect 1 "$program" inspect "$tmp/renamed.safetensors"
says "blocks.1.ffn.0.weight"
expect 0 "$program" inspect "$model"
passed
