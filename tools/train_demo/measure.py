"""How well the mouth follows the voice, and how good the pictures are.

  python measure.py video SHARE/portraits/portraits.json VIDEO.mp4 AUDIO.wav NAME [VIDEO AUDIO NAME ...]
      measures finished videos (256x256, of a portrait named in portraits.json) against the drawn truth
  python measure.py model SHARE [--clips 20] [--frames 57] [--guide 1.5] [--bf16] [--out DIR]
      makes clips with held-out voices and sentences on the CPU from SHARE/demo-model, writes MP4s, and
      prints the ceilings (drawn; after the VAE; after the VAE and H.264) beside the generated clips

Opening = the dark area inside the mouth (portrait.opening). Truth = the opening that the drawing takes from
the sound (audio.mouth). The first frame is the given portrait and does not count.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

import numpy as np
import torch
from safetensors.torch import load_file

import audio as A
import models as M
import portrait as P
from family import load
from held import clips as held_clips
from synth import fill
from train import corr, generate, psnr, strip

torch.set_grad_enabled(False)


def read_video(path):
    """-> [3, T, H, W] in [-1, 1]"""
    q = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "csv=p=0", path],
                       stdout=subprocess.PIPE, check=True).stdout.decode().strip().strip(",").split(",")
    w, h = int(q[0]), int(q[1])
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE, check=True).stdout
    v = torch.from_numpy(np.frombuffer(raw, np.uint8).reshape(-1, h, w, 3).copy())
    return v.permute(3, 0, 1, 2).float() / 127.5 - 1


def read_audio(path):
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"], stdout=subprocess.PIPE, check=True).stdout
    return torch.from_numpy(np.frombuffer(raw, np.float32).copy())


def write_video(path, v, wave=None):
    """[3, T, H, W] in [-1, 1] -> H.264 yuv420p, CRF 18"""
    raw = ((v * 0.5 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 3, 0).contiguous().numpy().tobytes()
    cmd = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{v.shape[3]}x{v.shape[2]}", "-r", "25", "-i", "-"]
    if wave is not None:
        t = tempfile.NamedTemporaryFile(suffix=".f32")
        t.write((wave / wave.abs().max().clamp_min(1e-6) * 0.6).numpy().astype(np.float32).tobytes())
        t.flush()
        cmd += ["-f", "f32le", "-ar", "16000", "-ac", "1", "-i", t.name, "-c:a", "aac"]
    subprocess.run(cmd + ["-c:v", "libx264", "-threads", "2", "-crf", "18", "-pix_fmt", "yuv420p", path], input=raw, check=True)


def truth_of(wave, frames):
    """The opening per frame; wave as the pipeline cuts it."""
    x = wave[:frames * A.STEP]
    x = torch.nn.functional.pad(x, (0, frames * A.STEP - len(x)))
    return A.mouth(A.normalise(x[None]), frames)[0][0]


def pictures(v):
    """Sharpness of the last frame against the first (gradient energy), colour drift in levels, flicker of the border in levels."""
    f = (v * 0.5 + 0.5) * 255
    en = lambda a: ((a[..., 1:] - a[..., :-1]) ** 2).mean().item() + ((a[..., 1:, :] - a[..., :-1, :]) ** 2).mean().item()
    # the mean of the last five frames, so that a blink or one open mouth does not decide
    sharp = np.mean([en(f[:, -i]) for i in range(1, 6)]) / en(f[:, 0])
    mean = f.mean((-1, -2))
    drift = (mean - mean[:, :1]).abs().mean(0)
    border = torch.cat([f[:, :, :80, :14], f[:, :, :80, -14:]], -1)
    flick = (border[:, 2:] - border[:, 1:-1]).abs().mean().item()
    return sharp, drift.max().item(), drift[-1].item(), flick


def row(name, v, p, t, other=None):
    o = P.opening(v[None], p)[0]
    c = corr(o[1:], t[1:]).item()
    x = float("nan")
    if other is not None:
        n = min(len(other), len(o))
        x = corr(o[1:n], other[1:n]).item()
    s, d, dl, fl = pictures(v)
    shut = t < 0.02
    shut[0] = False
    top = torch.quantile(o, 0.95).item()
    r = o[shut].mean().item() / max(top, 1) if shut.sum() > 2 else float("nan")
    print(f"{name:34s} corr {c:6.3f}  other {x:6.3f}  sharp {s:5.2f}  drift {d:4.2f} (last {dl:4.2f})  flicker {fl:4.2f}  open while silent {r:5.3f}", flush=True)
    return c, x, s, d, fl, r


def mean_row(name, rows):
    a = np.array(rows, float)
    m = np.array([c[~np.isnan(c)].mean() if (~np.isnan(c)).any() else np.nan for c in a.T])
    far = np.nanmax(a[:, 1]) if not np.isnan(a[:, 1]).all() else np.nan
    print(f"== {name}: {len(rows)} clips: correlation {m[0]:.3f} (lowest {a[:, 0].min():.3f}), other clip's sound {m[1]:.3f} (largest {far:.3f}), "
          f"sharpness {m[2]:.3f} (lowest {a[:, 2].min():.3f}), colour drift {m[3]:.2f} levels (largest {a[:, 3].max():.2f}), flicker {m[4]:.2f}, open while silent {m[5]:.3f}", flush=True)


def cmd_video(o):
    fam = json.load(open(o.portraits))
    jobs = [o.jobs[i:i + 3] for i in range(0, len(o.jobs), 3)]
    ts = []
    data = []
    for mp4, wav, name in jobs:
        v, w = read_video(mp4), read_audio(wav)
        data.append((mp4, v, load(fam[name])))
        ts.append(truth_of(w, v.shape[1]))
    rows = [row(os.path.basename(m)[:34], v, p, ts[i], ts[(i + 1) % len(ts)] if len(ts) > 1 else None) for i, (m, v, p) in enumerate(data)]
    mean_row("videos", rows)


def load_model(d):
    f = lambda n: {k: v.float() for k, v in load_file(f"{d}/{n}").items()}
    vae, dit, w2v, t5, clip = M.VAE(16), M.DiT(), M.Wav2Vec2(), M.UMT5(512, 64, 64, 128, 4, 2), M.ClipVisual()
    vae.load_state_dict(f("Wan2.1_VAE.safetensors"))
    dit.load_state_dict(f("diffusion_pytorch_model.safetensors"))
    w = f("wav2vec2/model.safetensors")
    w.pop("masked_spec_embed")
    w2v.load_state_dict(w)
    t5.load_state_dict(f("models_t5_umt5-xxl-enc-bf16.safetensors"))
    clip.load_state_dict({k[7:]: v for k, v in f("models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors").items() if k.startswith("visual.")})
    import sentencepiece
    tok = sentencepiece.SentencePieceProcessor(model_file=d + "/google/umt5-xxl/spiece.model")
    text = t5(torch.tensor(tok.encode("Speaker speaks clearly with clear mouth movement and facial expressions.") + [1]))
    for m in (vae, dit, w2v, clip):
        m.eval()
    return vae, dit, w2v, clip, text


def cmd_model(o):
    vae, dit, w2v, clip, text = load_model(o.share + "/demo-model")
    fam = json.load(open(o.share + "/portraits/portraits.json"))
    names = list(fam)
    n, F = o.clips, o.frames
    dt = torch.bfloat16 if o.bf16 else torch.float32
    sound = A.mulaw_decode(torch.from_numpy(held_clips(n, F, 5)))
    if o.pauses:                                       # sound that starts late and stops in between
        t = torch.arange(sound.shape[1]) / sound.shape[1]
        sound = sound * ~((t < 0.35) | ((t > 0.6) & (t < 0.8)))
    x = A.normalise(sound)
    extra = P.sample(max(0, n - len(names)), torch.Generator().manual_seed(31337))
    os.makedirs(o.out, exist_ok=True)
    res = {k: [] for k in ("drawn", "after VAE", "after VAE and H.264", "generated", "generated, MP4")}
    ps, secs = [], []
    mots = A.motion(x, F, torch.ones(n))
    for i in range(n):
        p = load(fam[names[i]]) if i < len(names) else {k: v[i - len(names)][None] for k, v in extra.items()}
        mo = {k: v[i:i + 1] for k, v in mots.items()}
        t = mots["open"][i]
        other = mots["open"][(i + 1) % n]
        v = P.draw(p, mo, *P.grid(1))[0]
        image = ((v[:, 0] + 1) * 127.5).round() / 127.5 - 1
        tag = f"{i:02d} {names[i] if i < len(names) else 'new'}"
        if o.ceilings:
            rec = vae.decode(vae.encode(v[None].to(dt)), dt)[0]
            ps.append(psnr(rec[None], v[None]).item())
            res["drawn"].append(row(tag + " drawn", v, p, t, other))
            res["after VAE"].append(row(tag + f" VAE {ps[-1]:.1f} dB", rec, p, t, other))
            write_video(f"{o.out}/{i:02d}_vae.mp4", rec)
            res["after VAE and H.264"].append(row(tag + " VAE, H.264", read_video(f"{o.out}/{i:02d}_vae.mp4"), p, t, other))
        t0 = time.time()
        g = generate(dit, w2v, vae, clip, text, image[None], x[i:i + 1], F, dt, torch.Generator().manual_seed(43 + i), o.steps, o.guide, o.sampler)[0]
        secs.append(time.time() - t0)
        mp4 = f"{o.out}/{i:02d}_generated.mp4"
        write_video(mp4, g, sound[i])
        res["generated"].append(row(tag + " generated", g, p, t, other))
        res["generated, MP4"].append(row(tag + " generated, MP4", read_video(mp4), p, t, other))
        if i < o.strips:
            k = torch.linspace(0, F - 1, 9).long()
            half = lambda q: torch.nn.functional.avg_pool2d(q[:, k].permute(1, 0, 2, 3), 2).permute(1, 0, 2, 3)
            rows = [half(v)] + ([half(rec)] if o.ceilings else []) + [half(read_video(mp4))]
            strip(rows, f"{o.out}/{i:02d}_strip.png")
    print(f"{o.sampler}, {o.steps} steps, two branches {'off' if o.guide is None else 'at ' + str(o.guide)}, {F} frames, {'bfloat16' if o.bf16 else 'float32'}, {np.mean(secs):.1f} s a clip")
    for k, r in res.items():
        if r:
            mean_row(k, r)
    if ps:
        print(f"== VAE on held-out clips: PSNR {np.mean(ps):.2f} dB (lowest {min(ps):.2f})")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    sub = ap.add_subparsers(dest="cmd", required=True)
    a = sub.add_parser("video")
    a.add_argument("portraits")
    a.add_argument("jobs", nargs="+")
    a = sub.add_parser("model")
    a.add_argument("share")
    a.add_argument("--clips", type=int, default=20)
    a.add_argument("--frames", type=int, default=57)
    a.add_argument("--steps", type=int, default=8)
    a.add_argument("--sampler", default="Flow_Unipc")
    a.add_argument("--guide", type=float)
    a.add_argument("--bf16", action="store_true")
    a.add_argument("--ceilings", action="store_true")
    a.add_argument("--pauses", action="store_true")
    a.add_argument("--strips", type=int, default=3)
    a.add_argument("--out", default="measured")
    o = ap.parse_args()
    cmd_video(o) if o.cmd == "video" else cmd_model(o)
