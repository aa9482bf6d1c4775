"""Goldens at sizes that nothing else has, from these modules: python odd_goldens.py OUT

Three heads of 72, five of 12, a text of 300 rows, an odd positional kernel, pictures that are not square,
another seed. The modules themselves are held against the reference by check_goldens.py."""
import json
import os
import sys

import torch
from safetensors.torch import save_file

import models
from synth import fill

SEED = 7
CONFIG = {
    "seed": SEED,
    "dit": {"dim": 216, "ffn_dim": 200, "num_heads": 3, "num_layers": 2, "freq_dim": 34, "text_dim": 40, "text_len": 300,
            "in_dim": 36, "out_dim": 16, "eps": 1e-6},
    "audio": {"intermediate_dim": 20, "context_tokens": 5},
    "vae": {"dim": 12},
    "t5": {"vocab": 500, "dim": 40, "dim_attn": 60, "dim_ffn": 72, "num_heads": 5, "num_layers": 2, "num_buckets": 32},
    "clip": {"vision_dim": 54, "vision_heads": 3, "vision_layers": 3, "vision_mlp_ratio": 4, "embed_dim": 16, "vocab_size": 32,
             "text_dim": 16, "text_heads": 2, "text_layers": 1, "max_text_len": 8},
    "w2v": {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 52, "conv_dim": [24] * 7,
            "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "num_feat_extract_layers": 7,
            "num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 3},
}
torch.set_grad_enabled(False)
rng = torch.Generator().manual_seed(1)


def noise(*shape):
    return torch.randn(*shape, generator=rng)


def save(name, tensors):
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{sys.argv[1]}/{name}.safetensors")


def wav2vec2():
    m, frames = fill(models.Wav2Vec2(36, 3, 3, 52, 24, 15, 3), "wav2vec2", SEED), 17
    wave = noise(frames * 640 + 123) * 0.1
    x = wave.double()
    x = ((x - x.mean()) / (x.var(unbiased=False) + 1e-7).sqrt()).float()[None]
    hidden = m(x, frames)[0]
    save("wav2vec2", {"wave": wave, "features": m.features(x, frames)[0], **{f"hidden.{i + 1}": hidden[:, i] for i in range(3)}})


def t5():
    m = fill(models.UMT5(500, 40, 60, 72, 5, 2), "t5", SEED)
    for name, n in (("t5", 7), ("t5_long", 333)):
        ids = torch.randint(3, 500, (n,), generator=rng)
        save(name, {"ids": ids.int(), "out": m(ids)})


def clip():
    m = fill(models.ClipVisual(54, 3, 3, 4, 16), "clip", SEED, "visual.")
    image = torch.randint(0, 256, (80, 176, 3), generator=rng).byte()
    save("clip", {"image": image, "out": m(image.permute(2, 0, 1)[None].float() / 255 * 2 - 1)[0]})


def vae():
    models.CONV_MODE = "3d"
    m = fill(models.VAE(12), "vae", SEED)
    video, latents = torch.rand(3, 9, 24, 40, generator=rng) * 2 - 1, noise(16, 4, 3, 5)
    still = torch.zeros(1, 3, 9, 24, 40)
    still[0, :, 0] = video[:, 0]
    save("vae", {"encode.first_frame_then_zero.in_frame0": video[:, 0], "encode.first_frame_then_zero.out": m.encode(still)[0],
                 "encode.video.in": video, "encode.video.out": m.encode(video[None])[0],
                 "decode.in": latents, "decode.out": m.decode(latents[None])[0]})


def dit(latents=3):
    m = fill(models.DiT(216, 200, 3, 2, 34, 40, 300, clip_dim=54, audio_feat=3 * 36, audio_mid=20, audio_tokens=5), "transformer", SEED)
    b = {"x": noise(1, 16, latents, 10, 6), "y": noise(1, 20, latents, 10, 6), "context": noise(1, 9, 40), "clip": noise(1, 257, 54),
         "audio": noise(1, 1 + 4 * (latents - 1), 5, 3, 36)}
    t, tap = torch.tensor([637.0]), {}
    args = (b["x"], b["y"], t, b["context"], b["clip"])
    out = {k: v[0] for k, v in b.items()} | {"t": t, "out.cond": m(*args, b["audio"], tap=tap)[0]}
    out["out.uncond"] = m(*args, torch.zeros_like(b["audio"]))[0]
    save("dit", out | {k: tap[k][0] for k in ("audio_tokens", "time_projection", "block.0", "block.1")})


os.makedirs(sys.argv[1], exist_ok=True)
json.dump({"config": CONFIG, "report": {}}, open(f"{sys.argv[1]}/report.json", "w"), indent=1)
for make in (wav2vec2, t5, clip, vae, dit):
    make()
