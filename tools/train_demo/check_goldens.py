"""Compare the modules and samplers with recorded outputs: python check_goldens.py GOLDENS/tiny"""
import sys

import torch
from safetensors.torch import load_file

import models
import sampler
from synth import fill, value

torch.set_grad_enabled(False)
root = sys.argv[1]
worst = 0.0


def show(name, got, ref):
    global worst
    e = ((got.double() - ref.double()).norm() / ref.double().norm()).item()
    worst = max(worst, e)
    print(f"{name:42s} {e:.2e}")


g = load_file(f"{root}/wav2vec2.safetensors")
m = fill(models.Wav2Vec2(64, 4, 4, 128, 32, 16, 4), "wav2vec2", 1)
w = g["wave"].double()
w = ((w - w.mean()) / (w.var(unbiased=False) + 1e-7).sqrt()).float()[None]
n = g["features"].shape[0]
show("wav2vec2 features", m.features(w, n)[0], g["features"])
h = m(w, n)[0]
for i in range(4):
    show(f"wav2vec2 hidden.{i + 1}", h[:, i], g[f"hidden.{i + 1}"])

m = fill(models.UMT5(), "t5", 1)
for f in ("t5", "t5_long"):
    g = load_file(f"{root}/{f}.safetensors")
    show(f, m(g["ids"].long()), g["out"])

g = load_file(f"{root}/clip.safetensors")
m = fill(models.ClipVisual(80, 5, 4, 4, 32), "clip", 1, "visual.")
im = g["image"].permute(2, 0, 1)[None].float() / 255 * 2 - 1
show("clip resized", m.resize(im)[0], g["resized"])
show("clip out", m(im)[0], g["out"])

g = load_file(f"{root}/vae.safetensors")
for mode in ("3d", "2d"):
    models.CONV_MODE = mode
    m = fill(models.VAE(8), "vae", 1)
    v = torch.zeros(1, 3, 13, 64, 48)
    v[0, :, 0] = g["encode.first_frame_then_zero.in_frame0"]
    show(f"vae encode first frame, zeros ({mode})", m.encode(v)[0], g["encode.first_frame_then_zero.out"])
    show(f"vae encode video ({mode})", m.encode(g["encode.video.in"][None])[0], g["encode.video.out"])
    show(f"vae decode ({mode})", m.decode(g["decode.in"][None])[0], g["decode.out"])

g = load_file(f"{root}/dit.safetensors")
m = fill(models.DiT(256, 512, 2, 3, 64, 64, 512, clip_dim=80, audio_feat=256, audio_mid=48, audio_tokens=8), "transformer", 1)
b = lambda k: g[k][None]
tap = {}
arg = (b("x"), b("y"), g["t"], b("context"), b("clip"))
out = m(*arg, b("audio"), tap=tap)
for k in ("patch_embedding", "time_embedding", "time_projection", "text_tokens", "image_tokens", "audio_tokens", "block.0", "block.1", "block.2"):
    ref, got = g[k], tap[k][0]
    if k == "patch_embedding":
        ref = ref.flatten(1).T
    show("dit " + k, got.reshape(ref.shape), ref)
show("dit out.cond", out[0], g["out.cond"])
show("dit out.uncond", m(*arg, torch.zeros_like(b("audio")))[0], g["out.uncond"])
show("dit out.cond.riflex", m(*arg, b("audio"), riflex=(6, 4))[0], g["out.cond.riflex"])
for f in ("schedulers", "schedulers_more"):
    g = load_file(f"{root}/{f}.safetensors")
    for key in sorted({k.rsplit(".", 1)[0] for k in g}):
        name, shift, steps = key.split(".")
        steps, trace, calls = int(steps[5:]), [], []

        def model(x, t):
            calls.append(t)
            return 0.3 * x + value(1, f"input.sched.v{len(calls) - 1}", (1, 4, 2, 3, 3))
        sampler.sample(model, value(1, "input.sched.x", (1, 4, 2, 3, 3)), name, steps, float(shift[5:]), trace)
        ref = g[key + ".trajectory"]
        show(key, torch.stack(trace).reshape(steps, -1), ref[ref.shape[0] - steps:].reshape(steps, -1))
print(f"worst {worst:.2e}", "ok" if worst < 2e-5 else "FAILED")
sys.exit(worst >= 2e-5)
