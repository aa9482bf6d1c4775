#!/usr/bin/env bash
# The same weights in every form that people have them in: safetensors, PyTorch's files, shards with
# an index and without. The same video, the same fingerprint; and what is not whole is told.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
base=Wan2.1-Fun-V1.1-1.3B-InP
torch=$tmp/torch
expect 0 "$program" synth --size tiny --out "$torch" --format pth
for file in "$base/Wan2.1_VAE.pth" "$base/models_t5_umt5-xxl-enc-bf16.pth" chinese-wav2vec2-base/pytorch_model.bin; do
    has "$torch/$file"
done

# ---- one video ----
list "$tmp/jobs.json" "$(job "$face" "$voice" one)"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/plain"
expect 0 "$program" batch --config_path "$torch/config.yaml" --model_name "$torch/$base" \
    --transformer_path "$torch/transformer/diffusion_pytorch_model.safetensors" \
    --wav2vec_model_dir "$torch/chinese-wav2vec2-base" "${quick[@]}" \
    --json_path "$tmp/jobs.json" --save_path "$tmp/pth"
cmp "$tmp/plain/one_output.mp4" "$tmp/pth/one_output.mp4" || fail "other frames from .pth files"

# ---- one fingerprint ----
fingerprints() { sed -n 's/^ *fingerprint //p' "$tmp/out" | sort; }
expect 0 "$program" inspect "$model"
plain=$(fingerprints)
expect 0 "$program" inspect --verify "$torch"
[ "$(fingerprints)" = "$plain" ] || fail "the formats' fingerprints differ"
[ "$(wc -l <<<"$plain")" -eq 5 ] || fail "not five files"
[ "$(grep -c 'every byte read: content' "$tmp/out")" -eq 5 ] || fail "--verify did not read all"
grep -qF 'visual.post_norm.weight' "$tmp/out" || fail "what is known and unused is not named"
expect 0 "$program" inspect --json "$torch/$base/Wan2.1_VAE.pth"
grep -qF "\"fingerprint\":\"" "$tmp/out" || fail "no fingerprint in JSON"

# ---- shards ----
flash=$model/transformer/diffusion_pytorch_model.safetensors
mkdir "$tmp/shards"
cp "$flash" "$tmp/shards/one.safetensors"
cat >"$tmp/shards/model.safetensors.index.json" <<<'{"weight_map": {"patch_embedding.weight": "one.safetensors"}}'
expect 0 "$program" inspect "$tmp/shards/model.safetensors.index.json"
expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/index" --force \
    --transformer_path "$tmp/shards/model.safetensors.index.json"
cmp "$tmp/plain/one_output.mp4" "$tmp/index/one_output.mp4" || fail "other frames from shards"
cat >"$tmp/shards/bad.index.json" <<<'{"weight_map": {"patch_embedding.weight": "two.safetensors"}}'
expect 3 "$program" inspect "$tmp/shards/bad.index.json"
says "two.safetensors"

# ---- what is not whole ----
vae=$torch/$base/Wan2.1_VAE.pth
head -c 100000 "$vae" >"$tmp/cut.pth"
expect 3 "$program" inspect "$tmp/cut.pth"
says "the file is cut short"
cp "$vae" "$tmp/bent.pth"
printf '\x55' | dd of="$tmp/bent.pth" bs=1 seek=1000000 conv=notrunc status=none
expect 0 "$program" inspect "$tmp/bent.pth"
expect 3 "$program" inspect --verify "$tmp/bent.pth"
says "is damaged: its CRC is"
cp "$share/../tests/golden/media/pth/evil.pth" "$vae"
expect 3 "$program" batch --config_path "$torch/config.yaml" --model_name "$torch/$base" \
    --transformer_path "$flash" --wav2vec_model_dir "$torch/chinese-wav2vec2-base" "${quick[@]}" \
    --json_path "$tmp/jobs.json" --save_path "$tmp/evil"
says "posix.system"
! grep -qF "this must never run" "$tmp/out" || fail "it ran"
lacks "$tmp/evil/one_output.mp4"
rm "$vae"
expect 3 "$program" batch --config_path "$torch/config.yaml" --model_name "$torch/$base" \
    --transformer_path "$flash" --wav2vec_model_dir "$torch/chinese-wav2vec2-base" "${quick[@]}" \
    --json_path "$tmp/jobs.json" --save_path "$tmp/evil"
says "tried 'Wan2.1_VAE.pth'"
passed
