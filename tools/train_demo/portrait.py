"""The family of portraits: a face drawn from signed distances, in units of a 256x256 picture.

`sample(n, generator)` draws parameters, `draw(params, motion, ys, xs)` paints frames in [-1, 1].
Everything that moves is a function of the sound or of the frame index (`motion` in audio.py), so a
frame is predictable from the first one and the sound.
"""
import math

import torch

HAIR = ("short", "long", "bob", "curly", "bun", "bald")
SCALARS = {  # name: (low, high)
    "cx": (122, 134), "cy": (116, 126), "rx": (53, 62), "ry": (68, 78), "chin": (0.08, 0.20),
    "eye_dx": (23, 27), "eye_dy": (-14, -8), "eye_w": (11.5, 14), "eye_h": (8.0, 10.5), "iris": (5.6, 7.0),
    "brow_dy": (-24, -20), "brow_w": (13, 17), "brow_t": (1.9, 3.0), "brow_tilt": (-0.08, 0.04),
    "nose_w": (5, 8), "nose_dy": (10, 16), "mouth_dy": (36, 42), "mouth_w": (21, 27), "smile": (2.5, 7.5), "lip": (3.2, 4.8),
    "ear": (9, 13), "hairline": (-52, -40), "part": (-26, 26), "fringe": (4, 14), "hair_grow": (8, 15),
    "neck_w": (21, 27), "shoulder": (88, 108), "blush": (0.0, 0.5), "halo": (0.0, 0.22), "grad": (-1.0, 1.0), "vneck": (0, 1),
}
SKIN = [(255, 224, 196), (247, 207, 172), (236, 188, 150), (222, 170, 128), (199, 143, 104), (176, 120, 84), (152, 102, 72), (134, 90, 66)]
HAIRC = [(48, 36, 34), (74, 52, 42), (108, 72, 48), (148, 98, 58), (188, 134, 76), (220, 178, 110), (164, 74, 44), (126, 126, 132), (206, 206, 208), (58, 48, 74)]
IRIS = [(86, 132, 168), (96, 134, 92), (112, 78, 52), (74, 58, 48), (112, 124, 132)]


def sample(n, gen):
    """n portraits as a dict of float tensors [n] and colours [n, 3] (0..1), on the CPU."""
    r = lambda *s: torch.rand(*s, generator=gen)
    p = {k: lo + (hi - lo) * r(n) for k, (lo, hi) in SCALARS.items()}
    pick = lambda t: torch.tensor(t, dtype=torch.float32)[torch.randint(len(t), (n,), generator=gen)] / 255
    p["skin"] = (pick(SKIN) + (r(n, 3) - 0.5) * 0.04).clamp(0, 1)
    p["hair"] = (pick(HAIRC) + (r(n, 3) - 0.5) * 0.06).clamp(0, 1)
    luma = lambda c: (c * torch.tensor([0.30, 0.59, 0.11])).sum(-1)
    near = ((luma(p["hair"]) - luma(p["skin"])).abs() < 0.12).float()[:, None]      # hair unlike the skin
    p["hair"] = p["hair"] * (1 - near) + (p["hair"] * 0.35) * near
    p["iris_c"] = pick(IRIS)

    def hsv(s0, s1, v0, v1):
        h, s, v = r(n, 1) * 6, s0 + (s1 - s0) * r(n, 1), v0 + (v1 - v0) * r(n, 1)
        k = (torch.tensor([5., 3., 1.]) + h) % 6
        return v - v * s * torch.minimum(k, 4 - k).clamp(0, 1)
    p["shirt"], p["bg1"] = hsv(0.3, 0.75, 0.35, 0.9), hsv(0.12, 0.5, 0.55, 0.95)
    p["bg2"] = (p["bg1"] * (0.72 + 0.4 * r(n, 1)) + (r(n, 3) - 0.5) * 0.12).clamp(0, 1)
    p["lips"] = (p["skin"] * torch.tensor([0.86, 0.56, 0.56]) + torch.tensor([0.08, 0.02, 0.04]) * r(n, 1)).clamp(0, 1)
    p["style"] = torch.randint(len(HAIR), (n,), generator=gen).float()
    p["glasses"] = (r(n) < 0.25).float()
    return p


def to(p, device):
    return {k: v.to(device) for k, v in p.items()}


def take(p, i):
    return {k: v[i] for k, v in p.items()}


def _mix(c, a, col):
    return c + a * (col - c)


def _edge(d, w=1.7):
    """Coverage from a signed distance (negative inside), a smooth ramp w pixels wide."""
    t = (0.5 - d / w).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _ellipse(x, y, a, b):
    """Approximate signed distance of an ellipse."""
    k = ((x / a) ** 2 + (y / b) ** 2).clamp_min(1e-8).sqrt()
    g = ((x / a ** 2) ** 2 + (y / b ** 2) ** 2).clamp_min(1e-12).sqrt()
    return k * (k - 1) / g


def _box(x, y, a, b, r):
    qx, qy = x.abs() - a + r, y.abs() - b + r
    return (qx.clamp_min(0) ** 2 + qy.clamp_min(0) ** 2 + 1e-8).sqrt() + torch.maximum(qx, qy).clamp_max(0) - r


def paint(p, m, ys, xs):
    """p: scalars broadcastable to the pixels [..., 1, 1], colours [..., 3, 1, 1]; m likewise; ys [..., H, 1], xs [..., 1, W]."""
    c = lambda k: p[k]
    x, y = xs + 0 * ys, ys + 0 * xs
    one = lambda t: t.unsqueeze(-3)                     # room for the colour axis
    # background
    g = ((y - 128) / 256 + c("grad") * (x - 128) / 256 + 0.5).clamp(0, 1)
    img = _mix(c("bg1"), one(g), c("bg2"))
    halo = torch.exp(-((x - c("cx")) ** 2 + (y - c("cy")) ** 2) / (2 * 78.0 ** 2))
    img = img + one(halo * c("halo")) * (1 - img)
    # head coordinates: moved and turned about the neck
    bx, by = c("cx"), c("cy") + 95
    X, Y = x - bx - m["dx"], y - by - m["dy"]
    s, k = torch.sin(m["turn"]), torch.cos(m["turn"])
    hx, hy = X * k - Y * s, X * s + Y * k + 95
    style = c("style")
    is_ = lambda i: (style == i).float()
    skin, hair = c("skin"), c("hair")
    dark = hair * 0.80
    # hair behind the head
    back = _box(hx, hy - 18, c("rx") + c("hair_grow") + 5, 78 + 0 * hy, 44 + 0 * hy)
    img = _mix(img, one(_edge(back) * is_(1)), dark)
    bob = _box(hx, hy + 8, c("rx") + c("hair_grow") + 4, 62 + 0 * hy, 40 + 0 * hy)
    img = _mix(img, one(_edge(bob) * is_(2)), dark)
    curl = (hx ** 2 + (hy + 34) ** 2).sqrt() - (c("rx") + 22 + 2.2 * torch.cos(11 * torch.atan2(hx, -(hy + 34))))
    img = _mix(img, one(_edge(curl, 2.0) * is_(3)), dark)
    bun = ((hx ** 2 + (hy + c("ry") + 14) ** 2).sqrt() - 22)
    img = _mix(img, one(_edge(bun) * is_(4)), dark)
    # shoulders, neck
    sh = _ellipse(x - c("cx"), y - 268, c("shoulder"), 66 + 0 * y)
    shade = 1 - 0.10 * ((x - c("cx")) / 90).clamp(-1, 1)
    img = _mix(img, one(_edge(sh)), c("shirt") * one(shade))
    col = _ellipse(x - c("cx"), y - c("cy") - 116, c("neck_w") + 9, 20 + 8 * c("vneck"))
    img = _mix(img, one(_edge(torch.maximum(col, sh))), c("shirt") * 0.80)
    neck = _box(x - c("cx") - 0.4 * m["dx"], y - c("cy") - 76, c("neck_w"), 46 + 6 * c("vneck"), c("neck_w") * 0.8)
    img = _mix(img, one(_edge(neck)), skin * 0.86)
    # ears and head
    ear = _ellipse(hx.abs() - c("rx") + 1.5, hy + 2, 0.72 * c("ear"), c("ear") + 3)
    img = _mix(img, one(_edge(ear)), skin * 0.92)
    taper = 1 - c("chin") * (hy / c("ry")).clamp(-0.6, 1.2)
    face = _ellipse(hx / taper, hy, c("rx"), c("ry"))
    light = 1.03 - 0.11 * (hx * 0.7 + hy * 0.5 + 10) / 60
    img = _mix(img, one(_edge(face)), skin * one(light.clamp(0.8, 1.06)))
    cheek = torch.exp(-((hx.abs() - 34) ** 2 + (hy - 22) ** 2) / 190)
    img = _mix(img, one(cheek * c("blush") * _edge(face)), skin * 0.55 + torch.tensor([0.42, 0.10, 0.12], device=x.device).view(3, 1, 1) * 1.0)
    # hair in front: the head's outline, grown, above a curved hairline
    cap = _ellipse(hx / taper, hy + 3, c("rx") + 0.5 * c("hair_grow"), c("ry") + 0.7 * c("hair_grow"))
    u = hx / c("rx")
    line = hy - (c("hairline") + c("fringe") * (1.0 * u * u) + 0.16 * (hx - c("part")).abs())
    line = torch.where(hx.abs() > c("rx") - 9, torch.minimum(line, hy + 6 - 6 * is_(0)), line)
    hasfront = 1 - is_(5)
    tone = 1.06 - 0.16 * (hx * 0.5 + hy + 60) / 60
    img = _mix(img, one(_edge(torch.maximum(cap, line), 2.2) * hasfront), hair * one(tone.clamp(0.84, 1.12)))
    # brows, nose
    t = hx.abs() - c("eye_dx")
    by_ = hy - c("brow_dy") - c("eye_dy") * 0.35 - m["brow"] - t * c("brow_tilt") + 0.012 * t * t
    brow = _box(t, by_, c("brow_w"), c("brow_t"), c("brow_t"))
    img = _mix(img, one(_edge(brow, 2.0)), _mix(hair * 0.75, 0.25, skin * 0.5))
    nose = _ellipse(hx, hy - c("nose_dy"), c("nose_w"), 4.2 + 0 * hy)
    img = _mix(img, one(_edge(nose, 4.0)) * 0.75, skin * 0.80)
    # eyes
    ey = hy - c("eye_dy")
    lid = c("eye_h") * (1 - m["blink"]) + 0.8
    white = _ellipse(t, ey, c("eye_w"), lid)
    a = _edge(white)
    img = _mix(img, one(_edge(torch.maximum(white - 1.6, t.abs() - c("eye_w") - 1.5), 2.0)), skin * 0.55)
    a = a * (1.6 - 1.6 * m["blink"]).clamp(0, 1)
    img = _mix(img, one(a), torch.tensor([0.97, 0.97, 0.96], device=x.device).view(3, 1, 1))
    ix = hx - torch.sign(hx) * c("eye_dx")
    ri = (ix ** 2 + ey ** 2 + 1e-6).sqrt()
    img = _mix(img, one(_edge(ri - c("iris")) * a), c("iris_c"))
    img = _mix(img, one(_edge(ri - 0.52 * c("iris")) * a), torch.tensor([0.08, 0.07, 0.09], device=x.device).view(3, 1, 1))
    hi = ((ix + 2.2) ** 2 + (ey + 2.4) ** 2 + 1e-6).sqrt() - 1.7
    img = _mix(img, one(_edge(hi) * a), torch.tensor([1.0, 1.0, 1.0], device=x.device).view(3, 1, 1))
    ring = (_box(t, ey - 1, c("eye_w") + 6, c("eye_w") + 2, 9 + 0 * hy)).abs() - 1.3
    bridge = _box(hx, ey + 1, c("eye_dx") - c("eye_w") - 5.5, 1.2 + 0 * hy, 1.0 + 0 * hy)
    img = _mix(img, one(_edge(torch.minimum(ring, bridge), 2.0) * c("glasses")), torch.tensor([0.16, 0.15, 0.18], device=x.device).view(3, 1, 1))
    # mouth: two curves over the half-width w, open by `open` (0..1)
    o, wd = m["open"], m["wide"]
    w = c("mouth_w") * (0.86 + 0.22 * wd - 0.10 * o)
    u = (hx / w).clamp(-1, 1)
    e = (1 - u * u).clamp_min(0)
    e = (e + 1e-4).sqrt() * 0.6 + e * 0.4
    my = hy - c("mouth_dy") + c("smile") * u * u
    up, lo = -8.0 * o * e, 19.0 * o * e
    side = (hx.abs() - w) * 0.8
    inner = torch.maximum(torch.maximum(up - my, my - lo), side)
    lips = torch.maximum(torch.maximum(up - c("lip") * (0.35 + 0.65 * e) - my, my - lo - 1.25 * c("lip") * (0.35 + 0.65 * e)), side - 2.0)
    img = _mix(img, one(_edge(lips, 2.0)), c("lips"))
    seam = torch.maximum((my - 0.5 * (up + lo)).abs() - 0.8, side)
    img = _mix(img, one(_edge(seam, 2.0)) * 0.55, c("lips") * 0.45)
    a = _edge(inner) * (o * 14).clamp(0, 1)
    img = _mix(img, one(a), torch.tensor([0.20, 0.03, 0.06], device=x.device).view(3, 1, 1))
    teeth = torch.maximum(inner, my - up - 3.6 * (o * 2.5).clamp(0, 1))
    img = _mix(img, one(_edge(teeth) * (o * 5 - 0.5).clamp(0, 1)), torch.tensor([0.96, 0.95, 0.92], device=x.device).view(3, 1, 1))
    tongue = torch.maximum(inner, _ellipse(hx, my - lo - 1.5, 0.52 * w, 5.0 + 0 * hy))
    img = _mix(img, one(_edge(tongue) * (o * 3 - 1).clamp(0, 1)), torch.tensor([0.80, 0.34, 0.36], device=x.device).view(3, 1, 1))
    return (img.clamp(0, 1) * 2 - 1)


PAINT = paint        # a training run may put a compiled version here


def draw(p, motion, ys, xs):
    """p: dict of [B] and [B, 3]; motion: dict of [B, T]; ys [B, H], xs [B, W] -> [B, 3, T, H, W] in [-1, 1]."""
    pp = {k: (v[:, None, :, None, None] if v.dim() == 2 else v[:, None, None, None]) for k, v in p.items()}
    mm = {k: v[:, :, None, None] for k, v in motion.items()}
    out = PAINT(pp, mm, ys[:, None, :, None], xs[:, None, None, :])
    return out.permute(0, 2, 1, 3, 4)


def grid(n, size=256, y0=None, x0=None, device="cpu"):
    r = torch.arange(size, device=device, dtype=torch.float32)[None] + 0.5
    y0 = torch.zeros(n, device=device) if y0 is None else y0
    x0 = torch.zeros(n, device=device) if x0 is None else x0
    return r + y0[:, None], r + x0[:, None]


def rest(n, device="cpu"):
    z = torch.zeros(n, 1, device=device)
    return {k: z for k in ("open", "blink", "brow", "dx", "dy", "turn")} | {"wide": z + 0.5}


def luma(rgb, dim):
    r, g, b = rgb.unbind(dim)
    return 0.30 * r + 0.59 * g + 0.11 * b


def opening(frames, p):
    """Dark area inside the mouth, in pixels, per frame: frames [B, 3, T, 256, 256] in [-1, 1] -> [B, T].

    Each pixel counts by how far its brightness lies from 0.62 of the lips' towards the mouth's inside."""
    y, x = torch.arange(256.0, device=frames.device) + 0.5, torch.arange(256.0, device=frames.device) + 0.5
    iny = ((y[None] > (p["cy"] + p["mouth_dy"])[:, None] - 14) & (y[None] < (p["cy"] + p["mouth_dy"])[:, None] + 30))
    inx = (x[None] - p["cx"][:, None]).abs() < p["mouth_w"][:, None] + 5
    box = (iny[:, :, None] & inx[:, None]).float()[:, None]
    thr = (0.62 * luma(p["lips"], -1))[:, None, None, None]
    v = (thr - luma(frames.float() * 0.5 + 0.5, 1)) / (thr - 0.085)
    return (v.clamp(0, 1) * box).sum((-1, -2))
