"""Train the demo model in pieces.

  python train.py vae --speech S.npy --init vae.safetensors --out DIR --seconds 400
  python train.py dit --speech S.npy --vae vae.safetensors --init a.safetensors [b...] --out DIR --seconds 480

Each piece warm-starts from weight files, runs for a time budget, and writes the averaged weights (EMA).
"""
import argparse
import glob
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import audio as A
import models as M
import portrait as P
from sampler import sample as run_sampler

T0 = time.time()


def log(*a):
    print(f"[{time.time() - T0:6.1f}]", *a, flush=True)


class Speech:
    """Random normalised clips of the training speech, with noise, pauses and silence."""

    def __init__(self, path, dev):
        self.a = torch.from_numpy(np.load(path)).to(dev)
        self.dev = dev

    def clips(self, n, frames, g, plain=False):
        s = frames * A.STEP
        r = lambda *k: torch.rand(*k, generator=g, device=self.dev)
        at = (r(n) * (len(self.a) - s - 1)).long()
        x = A.mulaw_decode(self.a[at[:, None] + torch.arange(s, device=self.dev)])
        t = torch.arange(s, device=self.dev)[None] / s
        a0 = r(n, 1) * 1.1 - 0.1
        ln = 0.12 + 0.5 * r(n, 1)
        a0 = torch.where(r(n, 1) < 0.5, torch.zeros_like(a0), a0)          # half of the pauses are late starts
        mute = ((t >= a0) & (t < a0 + ln) & (r(n, 1) < 0.22)).float()
        x = x * (1 - mute)
        lvl = x.pow(2).mean(-1, keepdim=True).sqrt()
        x = x + lvl * 10 ** (-(28 + 30 * r(n, 1)) / 20) * torch.randn(n, s, generator=g, device=self.dev)
        x = x * (r(n, 1) > 0.05).float()                                   # exact silence
        return A.normalise(x)


def compiled_norm():
    """The fused norm and SiLU: rows of any number, one kernel per channel count."""
    torch._dynamo.config.automatic_dynamic_shapes = False
    f = torch.compile(M.rms_silu_rows)

    def call(x, gamma):
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return f(x, gamma)
    return call


def ema_update(ema, params, k):
    torch._foreach_lerp_(ema, params, 1 - k)


def save_split(sd, out, stem, limit=15 << 20):
    """Several files under `limit` bytes each: stem.0.safetensors, ..."""
    part, size, k = {}, 0, 0
    for n, t in sd.items():
        t = t.detach().contiguous().cpu()
        b = t.numel() * t.element_size()
        if size + b > limit:
            save_file(part, f"{out}/{stem}.{k}.safetensors")
            part, size, k = {}, 0, k + 1
        part[n] = t
        size += b
    save_file(part, f"{out}/{stem}.{k}.safetensors")


def load_many(paths):
    sd = {}
    for p in paths:
        for f in sorted(glob.glob(p)) or [p]:
            sd.update(load_file(f))
    return {k: v.float() for k, v in sd.items()}


def strip(rows, path):
    """rows: list of [3, T, H, W] in [-1, 1] -> one PNG, a row each."""
    from PIL import Image
    im = torch.cat([torch.cat(list(r.permute(1, 0, 2, 3)), 2) for r in rows], 1)
    im = ((im.float().clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(im).save(path)


def psnr(a, b):
    """8-bit PSNR over all but the batch axis."""
    a, b = (((v.float().clamp(-1, 1) + 1) * 127.5).floor() for v in (a, b))
    return 10 * torch.log10(255 ** 2 / (a - b).pow(2).flatten(1).mean(1).clamp_min(1e-3))


# ---------------------------------------------------------------- VAE

def train_vae(o, dev):
    torch.manual_seed(o.seed)
    g = torch.Generator(device=dev).manual_seed(o.seed)
    cg = torch.Generator().manual_seed(o.seed + 1)
    sp = Speech(o.speech, dev)
    vae = M.VAE(16).to(dev)
    if o.init:
        vae.load_state_dict(load_many(o.init))
    dt = torch.bfloat16 if dev.type == "cuda" else torch.float32
    params = [p for p in vae.parameters()]
    n_par = sum(p.numel() for p in params)
    small = o.tiny
    # (crop, frames, batch): face crops, long whole pictures, long crops
    shapes = [(64, 9, 1), (64, 5, 1)] if small else [(128, 17, 16), (256, 33, 2), (128, 17, 16), (128, 81, 3)]

    def batch(crop, frames, b):
        p = P.to(P.sample(b, cg), dev)
        x = sp.clips(b, frames, g)
        m = A.motion(x, frames, (torch.rand(b, generator=g, device=dev) < 0.5).float())
        # blinks and sway at any place of their course, so that short clips hold them too
        off = torch.rand(b, 1, generator=g, device=dev)
        t = torch.arange(frames, device=dev)[None] + 150 * off
        m["blink"] = (1 - (((t % 40) - 20).abs() / 2.6) ** 2).clamp(0, 1)
        m["dx"] = 3.5 * torch.sin(2 * math.pi * t / 72)
        m["turn"] = 0.025 * torch.sin(2 * math.pi * t / 88 + 1)
        m["dy"] = m["dy"] * (0.5 + off)
        u = torch.rand(2, b, generator=g, device=dev)
        if crop == 256:
            y0 = x0 = torch.zeros(b, device=dev)
        else:                                     # half of the crops lie on the face
            face = (torch.rand(b, generator=g, device=dev) < 0.6).float()
            y0 = face * (40 + u[0] * 70) + (1 - face) * u[0] * (256 - crop)
            x0 = face * (44 + u[1] * 40) + (1 - face) * u[1] * (256 - crop)
        ys, xs = P.grid(b, crop, y0.floor(), x0.floor(), dev)
        gy, gx = ys[:, :, None], xs[:, None]
        c = lambda k: p[k][:, None, None]
        w = 1 + 2.0 * torch.exp(-((gy - c("cy") - c("mouth_dy") - 6) / 20) ** 4 - ((gx - c("cx")) / 32) ** 4)
        w = w + 2.0 * torch.exp(-((gy - c("cy") - c("eye_dy") + 2) / 18) ** 4 - ((gx - c("cx")) / 46) ** 4)
        w = w[:, None, None].repeat(1, 1, frames, 1, 1)                  # eyes, mouth and the first frame count more
        w[:, :, 0] *= 3
        return P.draw(p, m, ys, xs), w

    def loss_of(vw):
        v, wt = vw
        raw = vae.encode_raw(v.to(dt))
        z = raw + (0.04 * torch.randn_like(raw.float()) * vae.s).to(raw.dtype)
        y = vae.decode_raw(z).float()
        d = y - v
        l1, l2 = (d.abs() * wt).mean(), (d.pow(2) * wt).mean()
        gx, gy = d[..., 1:] - d[..., :-1], d[..., 1:, :] - d[..., :-1, :]
        gt = d[:, :, 1:] - d[:, :, :-1]
        w = ((raw.float() - vae.m) / vae.s)
        reg = (w.mean((0, 1, 2, 3)).pow(2) + (w.pow(2).mean((0, 1, 2, 3)) - 1).pow(2)).mean()
        return l1 + 6 * l2 + 0.3 * (gx.abs().mean() + gy.abs().mean()) + 0.2 * gt.abs().mean() + 0.002 * reg, d.detach().pow(2).mean()

    if o.conv:
        M.CONV_MODE = o.conv
        if dev.type == "cuda":
            M.NORM_SILU = compiled_norm()
    elif dev.type == "cuda":
        # choose the faster convolution form, each timed on real steps
        best, norm_fast = None, compiled_norm()
        for mode, comp in (("2d", True), ("3d", True), ("2d", False)):
            if best and not comp:
                break
            try:
                M.CONV_MODE = mode
                M.NORM_SILU = norm_fast if comp else M.rms_silu_rows
                t1 = time.time()
                v = batch(*shapes[0])
                for k in range(4):
                    if k == 1:
                        torch.cuda.synchronize()
                        t2 = time.time()
                    loss_of(v)[0].backward()
                torch.cuda.synchronize()
                t3 = time.time()
                log(f"conv {mode}: {(t3 - t2) / 3 * 1e3:.0f} ms a step, first {t2 - t1:.1f} s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
                if best is None or (t3 - t2) < best[0]:
                    best = (t3 - t2, mode)
            except Exception as e:
                log("conv", mode, "failed:", repr(e)[:300])
            vae.zero_grad(set_to_none=True)
        M.CONV_MODE = best[1]
        log("using", best[1])
        open(o.out + "/conv.txt", "w").write(best[1])

    opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.97), weight_decay=0, fused=dev.type == "cuda")
    ema = [p.detach().clone() for p in params]
    start, step, sq = time.time(), 0, []
    t_last, saved = start, start
    while True:
        frac = (time.time() - start) / o.seconds
        if frac >= 1:
            break
        lr = o.lr * min(1, (step + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * frac) + 0.01)
        for gr in opt.param_groups:
            gr["lr"] = lr
        loss, l2 = loss_of(batch(*shapes[step % len(shapes)]))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 0.5)
        opt.step()
        ema_update(ema, params, min(0.997, (step + 1) / (step + 20)))
        sq.append(l2)
        step += 1
        if step % (2 if small else 100) == 0:
            now = time.time()
            m = torch.stack(sq).mean().item()
            log(f"vae step {step} lr {lr:.1e} crop psnr {10 * math.log10(4 / m):.2f} dB, {(now - t_last) / len(sq) * 1e3:.0f} ms a step")
            sq, t_last = [], now
        if small and step >= 4:
            break
        if time.time() - saved > 100:
            saved = time.time()
            save_file({k: v.contiguous().cpu() for (k, _), v in zip(vae.named_parameters(), ema)}, f"{o.out}/vae.safetensors")
    with torch.no_grad():
        for p, e in zip(params, ema):
            p.copy_(e)
        # set the latents to the family's mean and deviation: fold scale and shift into conv1 and conv2
        acc = []
        for _ in range(2 if small else 16):
            acc.append(vae.encode_raw((batch(64, 5, 2) if small else batch(256, 33, 4))[0].to(dt)).float().flatten(0, 3))
        a = torch.cat(acc)
        mean, std = a.mean(0), a.std(0)
        k, sh = vae.s / std, vae.m - mean * vae.s / std              # new = old * k + sh
        c1w, c1b, c2w, c2b = vae.conv1.weight, vae.conv1.bias, vae.conv2.weight, vae.conv2.bias
        c1w[:16] *= k[:, None, None, None, None]
        c1b[:16] = c1b[:16] * k + sh
        w2 = c2w[:, :, 0, 0, 0].clone()
        c2b -= w2 @ (sh / k)
        c2w /= k[None, :, None, None, None]
        log("latent deviation before", [round(x, 2) for x in (std / vae.s).tolist()])
    save_file({k: v.contiguous().cpu() for k, v in vae.state_dict().items()}, f"{o.out}/vae.safetensors")
    log(f"vae: {n_par / 1e6:.2f} M parameters, {step} steps saved")
    eval_vae(vae, o, dev, small)
    return vae


@torch.no_grad()
def eval_vae(vae, o, dev, small=False):
    """Held-out portraits and clips, bfloat16 weights."""
    w = {k: v.bfloat16().float() for k, v in vae.state_dict().items()}
    vae.load_state_dict(w)
    dt = torch.bfloat16 if dev.type == "cuda" else torch.float32
    cg, g = torch.Generator().manual_seed(777), torch.Generator(device=dev).manual_seed(777)
    sp = Speech(o.speech, dev)
    rows = []
    for frames in ((5,) if small else (33, 65)):
        ps, first, last = [], [], []
        for _ in range(1 if small else 4):
            b = 1 if small else 4
            p = P.to(P.sample(b, cg), dev)
            v = P.draw(p, A.motion(sp.clips(b, frames, g), frames), *P.grid(b, 64 if small else 256, device=dev))
            y = vae.decode(vae.encode(v.to(dt)), dt)
            ps.append(psnr(y, v))
            first.append(psnr(y[:, :, :1], v[:, :, :1]))
            last.append(psnr(y[:, :, -1:], v[:, :, -1:]))
            if len(rows) < 4:
                i = torch.linspace(0, frames - 1, 8).long()
                rows += [v[0][:, i], y[0][:, i]]
        f = lambda t: f"{torch.cat(t).mean().item():.2f}"
        log(f"vae held-out {frames} frames 256x256: psnr {f(ps)} dB, first frame {f(first)}, last frame {f(last)}")
    strip(rows, f"{o.out}/vae.png")


# ---------------------------------------------------------------- transformer

def make_towers():
    """The frozen text and image towers: pure functions of a name and a seed."""
    from synth import fill
    return fill(M.UMT5(512, 64, 64, 128, 4, 2), "t5", 4).eval(), fill(M.ClipVisual(32, 2, 2, 4, 32), "clip", 4, "visual.").eval()


def load_audio_dit(dit, w2v, sd, drop):
    """Warm start; from a deeper transformer block `drop` is left out, tensors of other shapes start anew."""
    own = dit.state_dict()
    nb = len(dit.blocks)
    have = 1 + max((int(k.split(".")[1]) for k in sd if k.startswith("blocks.")), default=-1)
    keep = [i for i in range(have) if have == nb or i != drop][:nb]
    out, fresh = {}, []
    for k, v in own.items():
        src = k
        if k.startswith("blocks."):
            p = k.split(".")
            src = ".".join(["blocks", str(keep[int(p[1])]) if int(p[1]) < len(keep) else "?"] + p[2:])
        if src in sd and sd[src].shape == v.shape:
            out[k] = sd[src]
        else:
            fresh.append(k)
            out[k] = v
    dit.load_state_dict(out)
    w = {k[len("w2v."):]: v for k, v in sd.items() if k.startswith("w2v.")}
    if w:
        w2v.load_state_dict(w)
    return fresh


class Pool:
    """Encoded clips of one length, kept on the device and renewed bit by bit."""

    def __init__(self, frames, size, vae, clip, sp, cg, g, dev, res, dt):
        self.f, self.n, self.vae, self.clip, self.sp, self.cg, self.g, self.dev, self.res, self.dt = frames, size, vae, clip, sp, cg, g, dev, res, dt
        lf, h = 1 + (frames - 1) // 4, res // 8
        e = lambda *s, d=torch.float16: torch.zeros(size, *s, device=dev, dtype=d)
        self.z, self.c, self.wt = e(16, lf, h, h), e(16, lf, h, h), e(h, h)
        self.wave, self.tok = e(frames * A.STEP), e(257, 32, d=torch.float32)
        self.at = 0

    @torch.no_grad()
    def add(self, b):
        p = P.to(P.sample(b, self.cg), self.dev)
        x = self.sp.clips(b, self.f, self.g)
        closed = (torch.rand(b, generator=self.g, device=self.dev) < 0.7).float()
        v = P.draw(p, A.motion(x, self.f, closed), *P.grid(b, self.res, device=self.dev))
        v = ((v + 1) * 127.5).round() / 127.5 - 1                         # the portrait comes as 8-bit
        y = torch.zeros_like(v)
        y[:, :, 0] = v[:, :, 0]
        i = torch.arange(self.at, self.at + b, device=self.dev) % self.n
        self.z[i] = self.vae.encode(v.to(self.dt)).half()
        self.c[i] = self.vae.encode(y.to(self.dt)).half()
        self.wave[i] = x.half()
        self.tok[i] = self.clip(v[:, :, 0])
        h = self.res // 8
        gy, gx = (torch.arange(h, device=self.dev) * 8 + 4.0)[None, :, None], (torch.arange(h, device=self.dev) * 8 + 4.0)[None, None]
        my, mx = (p["cy"] + p["mouth_dy"] + 4)[:, None, None], p["cx"][:, None, None]
        mouth = torch.exp(-((gy - my) / 17) ** 4 - ((gx - mx) / 27) ** 4)
        ey = (p["cy"] + p["eye_dy"])[:, None, None]
        eyes = torch.exp(-((gy - ey) / 16) ** 4 - ((gx - mx) / 42) ** 4)
        self.wt[i] = (1 + 6 * mouth + 1.0 * eyes).half()
        self.at = (self.at + b) % self.n

    def get(self, b):
        i = torch.randint(self.n, (b,), generator=self.g, device=self.dev)
        return [t[i].float() for t in (self.z, self.c, self.wt, self.wave, self.tok)]


def condition(c):
    """[B, 16, f, h, w] -> y: four mask channels (first latent frame given), then the latents."""
    m = torch.zeros(c.shape[0], 4, *c.shape[2:], device=c.device, dtype=c.dtype)
    m[:, :, 0] = 1
    return torch.cat([m, c], 1)


PROMPTS = ["Speaker speaks clearly with clear mouth movement and facial expressions.", "A person is talking.", "",
           "A woman sings on a stage, cinematic light.", "An old man explains something to the camera."]


def prompts(t5, spiece):
    if spiece and os.path.exists(spiece):
        import sentencepiece
        tok = sentencepiece.SentencePieceProcessor(model_file=spiece)
        ids = [tok.encode(s) + [1] for s in PROMPTS]
    else:
        ids = [[3 + (7 * i + j * 11) % 300 for j in range(9 + i)] + [1] for i in range(4)]
    r = torch.Generator().manual_seed(9)
    ids += [torch.randint(3, 350, (n,), generator=r).tolist() + [1] for n in (5, 12, 20, 33, 60)]
    with torch.no_grad():
        return [t5(torch.tensor(i)) for i in ids]


def train_dit(o, dev):
    torch.manual_seed(o.seed)
    g, cg = torch.Generator(device=dev).manual_seed(o.seed), torch.Generator().manual_seed(o.seed)
    small = o.tiny
    dt = torch.bfloat16 if dev.type == "cuda" else torch.float32
    torch.set_float32_matmul_precision("high")
    sp = Speech(o.speech, dev)
    t5, clip = make_towers()
    text = [t.to(dev) for t in prompts(t5, o.spiece)]
    clip = clip.to(dev).requires_grad_(False)
    vae = M.VAE(16).to(dev).requires_grad_(False)
    vae.load_state_dict({k: v.bfloat16().float() for k, v in load_many([o.vae]).items()})
    M.CONV_MODE = o.conv or "3d"
    if dev.type == "cuda":
        M.NORM_SILU = compiled_norm()
    dit, w2v = M.DiT().to(dev), M.Wav2Vec2().to(dev)
    fresh = load_audio_dit(dit, w2v, load_many(o.init), o.drop) if o.init else ["all"]
    log(f"transformer {sum(p.numel() for p in dit.parameters()) / 1e6:.2f} M, wav2vec2 {sum(p.numel() for p in w2v.parameters()) / 1e6:.2f} M; new: {fresh}")
    # the pool
    res = 64 if small else 256
    lens = [(13, 6, 0.5, 2), (9, 4, 0.5, 2)] if small else [(57, int(900 * o.pool), 0.65, 20), (33, int(640 * o.pool), 0.35, 34)]
    pools = [Pool(f, n, vae, clip, sp, cg, g, dev, res, dt) for f, n, _, _ in lens]
    t1 = time.time()
    for pl in pools:
        b = 2 if small else 4
        while pl.at + b < pl.n:
            pl.add(b)
        pl.add(b)
        if dev.type == "cuda":
            torch.cuda.synchronize()
        log(f"pool of {pl.n} clips of {pl.f} frames ready, {time.time() - t1:.1f} s; latent mean {pl.z.float().mean().item():.3f} deviation {pl.z.float().std().item():.3f}")
    ropes = []
    for f, *_ in lens:
        a = M.rope_angles(1 + (f - 1) // 4, res // 16, res // 16, dit.head_dim, dev)
        ropes.append((a.cos().float()[:, None], a.sin().float()[:, None]))
    if dev.type == "cuda" and not o.eager:
        torch._dynamo.config.automatic_dynamic_shapes = False
        for b in dit.blocks:
            b.compile(dynamic=False)
    params = [p for n, p in list(dit.named_parameters()) + list(w2v.named_parameters()) if "q_audio" not in n]
    ema = [p.detach().clone() for p in params]
    opt = torch.optim.AdamW(params, lr=o.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=dev.type == "cuda")

    done = 0
    if o.resume and os.path.exists(o.resume):
        r = torch.load(o.resume, map_location=dev)
        with torch.no_grad():
            for p, e, a, b in zip(params, ema, r["params"], r["ema"]):
                p.copy_(a)
                e.copy_(b)
        opt.load_state_dict(r["opt"])
        done = r["steps"]
        log(f"resumed after {done} steps")

    def state():
        names = [n for n, _ in dit.named_parameters()] + ["w2v." + n for n, _ in w2v.named_parameters()]
        allp = list(dit.parameters()) + list(w2v.parameters())
        by = {id(p): e for p, e in zip(params, ema)}
        return {n: by.get(id(p), p) for n, p in zip(names, allp)}

    start, step, acc = time.time(), 0, []
    t_last, saved = start, start
    rng = np.random.default_rng(o.seed)
    while True:
        frac = (time.time() - start) / o.seconds
        if frac >= 1:
            break
        sched = o.lr_end + (1 - o.lr_end) * (0.5 + 0.5 * math.cos(math.pi * frac))
        lr = o.lr * min(1, (step + 1) / 150) * sched
        for gr in opt.param_groups:
            gr["lr"] = lr
        k = int(rng.random() > lens[0][2])
        pl, b = pools[k], lens[k][3]
        z, c, wt, wave, tok = pl.get(b)
        r = lambda *s: torch.rand(*s, generator=g, device=dev)
        u = r(b)
        if rng.random() < 0.6:
            u = 5 * u / (1 + 4 * u)
        u = u.clamp(0.003, 1)
        s = u[:, None, None, None, None]
        n = torch.randn(z.shape, generator=g, device=dev)
        win = M.audio_windows(w2v(wave, pl.f)) * (r(b) > 0.1).float()[:, None, None, None, None]
        tx = text[0 if rng.random() < 0.5 else rng.integers(len(text))][None].expand(b, -1, -1)
        v = dit((1 - s) * z + s * n, condition(c), u * 1000, tx, tok, win, dtype=dt, rope=ropes[k])
        err = (v - (n - z)).pow(2)
        wmap = wt[:, None, None] * torch.ones_like(err[:1, :1])
        loss = (err * wmap).mean() / wt.mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        gn = torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        ema_update(ema, params, min(o.ema, (done + step + 1) / (done + step + 10)))
        acc.append(torch.stack([loss.detach(), err.detach().mean(), gn]))
        step += 1
        if step % (3 if small else 10) == 0:
            pools[(step // 10) % 2].add(2 if small else 4)
        if step % (2 if small else 200) == 0:
            now = time.time()
            m = torch.stack(acc).mean(0).tolist()
            log(f"dit step {step} lr {lr:.1e} loss {m[0]:.4f} plain {m[1]:.4f} grad {m[2]:.2f}, {(now - t_last) / len(acc) * 1e3:.1f} ms a step")
            acc, t_last = [], now
        if small and step >= 6:
            break
        if time.time() - saved > 120:
            saved = time.time()
            save_split(state(), o.out, "dit")
    sd = state()
    save_split(sd, o.out, "dit")
    log(f"{step} steps saved")
    if o.resume:
        torch.save({"params": params, "ema": ema, "opt": opt.state_dict(), "steps": done + step}, o.resume)
    for b in dit.blocks:
        b._compiled_call_impl = None
    with torch.no_grad():
        dit.load_state_dict({k: v.bfloat16().float() for k, v in sd.items() if not k.startswith("w2v.")}, strict=True)
        w2v.load_state_dict({k[4:]: v.bfloat16().float() for k, v in sd.items() if k.startswith("w2v.")})
    eval_dit(o, dev, dit, w2v, vae, clip, text[0], sp, small)


@torch.no_grad()
def generate(dit, w2v, vae, clip, text, image, wave, frames, dt, gen, steps=8, guide=None, name="Flow_Unipc", shift=5.0, decode=True):
    """image [B, 3, H, W] in [-1, 1], wave [B, n] normalised -> video [B, 3, frames, H, W] in [-1, 1]."""
    b, _, h, w = image.shape
    y = torch.zeros(b, 3, frames, h, w, device=image.device)
    y[:, :, 0] = image
    y = condition(vae.encode(y.to(dt)).float())
    tok = clip(image)
    win = M.audio_windows(w2v(wave, frames))
    x = torch.randn(b, 16, y.shape[2], h // 8, w // 8, generator=gen).to(image.device)
    tx = text[None].expand(b, -1, -1)

    def model(x, t):
        tt = torch.full((b,), t, device=x.device)
        c = dit(x, y, tt, tx, tok, win, dtype=dt)
        if guide is None:
            return c
        u = dit(x, y, tt, tx, tok, torch.zeros_like(win), dtype=dt)
        return u + guide * (c - u)
    x = run_sampler(model, x, name, steps, shift)
    return vae.decode(x, dt) if decode else x


def corr(a, b):
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)


@torch.no_grad()
def eval_dit(o, dev, dit, w2v, vae, clip, text, sp, small):
    dt = torch.bfloat16 if dev.type == "cuda" else torch.float32
    cg, g = torch.Generator().manual_seed(4242), torch.Generator(device=dev).manual_seed(4242)
    frames, n, res = (9, 1, 64) if small else (57, 12, 256)
    held = None
    if o.held and os.path.exists(o.held):
        held = torch.from_numpy(np.load(o.held)).to(dev)                    # [clips, samples] mu-law
    p = P.to(P.sample(n, cg), dev)
    wave = A.normalise(A.mulaw_decode(held[:n, :frames * A.STEP])) if held is not None else sp.clips(n, frames, g)
    wave = wave[:n]
    mot = A.motion(wave, frames, torch.ones(n, device=dev))
    truth = P.draw(p, mot, *P.grid(n, res, device=dev))
    image = ((truth[:, :, 0] + 1) * 127.5).round() / 127.5 - 1
    rec = vae.decode(vae.encode(truth.to(dt)), dt)
    gen_ = lambda: torch.Generator().manual_seed(43)
    if not small:
        op = lambda v: P.opening(v, p)[:, 1:]
        t = mot["open"][:, 1:]
        log(f"ceilings: drawn {corr(op(truth), t).mean().item():.3f}, after VAE {corr(op(rec), t).mean().item():.3f}, VAE psnr {psnr(rec, truth).mean().item():.2f}")
    best = None
    combos = [(2, None, "Flow_Unipc")] if small else [(8, None, "Flow_Unipc"), (8, 1.5, "Flow_Unipc"), (8, 2.0, "Flow_Unipc"), (8, 3.0, "Flow_Unipc"), (8, None, "Flow_DPM++"), (8, None, "Flow"), (4, None, "Flow_Unipc"), (16, None, "Flow_Unipc")]
    for steps, guide, name in combos:
        v = generate(dit, w2v, vae, clip, text, image, wave, frames, dt, gen_(), steps, guide, name)
        if small:
            break
        c, cx = corr(op(v), t), corr(op(v), t.roll(1, 0))
        gr = lambda f: (f[..., 1:] - f[..., :-1]).abs().mean((-1, -2, -3))
        sharp = gr(v[:, :, -1]) / gr(v[:, :, 0])
        log(f"{name} {steps} steps guide {guide}: corr {c.mean().item():.3f} (min {c.min().item():.3f}), other {cx.mean().item():.3f}, psnr to drawn {psnr(v, truth).mean().item():.2f}, sharp {sharp.mean().item():.3f}")
        if name == "Flow_Unipc" and steps == 8 and guide in (None, 2.0):
            i = torch.linspace(0, frames - 1, 10).long()
            half = lambda q: F.avg_pool2d(q.permute(1, 0, 2, 3), 2).permute(1, 0, 2, 3)
            strip([q for j in range(4) for q in (half(truth[j][:, i]), half(v[j][:, i]))], f"{o.out}/dit_{guide}.png")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("what", choices=("vae", "dit", "evalvae"))
    ap.add_argument("--speech", required=True)
    ap.add_argument("--held")
    ap.add_argument("--spiece")
    ap.add_argument("--init", nargs="*")
    ap.add_argument("--vae")
    ap.add_argument("--out", required=True)
    ap.add_argument("--seconds", type=float, default=60)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--lr_end", type=float, default=0.01)
    ap.add_argument("--ema", type=float, default=0.999)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--pool", type=float, default=1.0)
    ap.add_argument("--drop", type=int, default=3)
    ap.add_argument("--conv", choices=("2d", "3d"))
    ap.add_argument("--resume", help="a file that keeps weights, averages and optimizer between pieces on one machine")
    ap.add_argument("--tiny", action="store_true")
    ap.add_argument("--eager", action="store_true")
    o = ap.parse_args()
    os.makedirs(o.out, exist_ok=True)
    dev = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    if o.what == "vae":
        train_vae(o, dev)
    elif o.what == "dit":
        train_dit(o, dev)
    else:
        v = M.VAE(16).to(dev)
        v.load_state_dict(load_many(o.init))
        eval_vae(v, o, dev)
