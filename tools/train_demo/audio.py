"""Sound: the motion that it drives, and the way the pipeline prepares it."""
import math

import torch

RATE, FPS = 16000, 25
STEP = RATE // FPS


def normalise(x):
    """[B, n] -> zero mean, unit variance."""
    x = x.double() if x.device.type == "cpu" else x.float()
    return ((x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-7).sqrt()).float()


def mouth(x, frames):
    """Opening and width (0..1) per frame, [B, frames] each, from the normalised wave [B, n].

    Per frame a 50 ms Hann window about the frame's middle. The opening is the level of 90-2200 Hz over the
    clip's own mean level, from -17 dB (shut) to +4 dB (wide), less where 3 kHz and more dominates (s, f, sh);
    the width is the share of 1200-3000 Hz. Both are averaged over three frames (1/4, 1/2, 1/4).
    """
    n = 800
    need = frames * STEP + n
    x = torch.nn.functional.pad(x, (n // 2 - STEP // 2, max(0, need - x.shape[-1])))
    w = x.unfold(-1, n, STEP)[:, :frames] * torch.hann_window(n, device=x.device)
    s = torch.fft.rfft(w, 1024).abs() ** 2
    s = s * (2 / (1024 * (torch.hann_window(n) ** 2).sum().item()))      # white noise of variance 1 sums to 1
    hz = torch.arange(s.shape[-1], device=x.device) * (RATE / 1024)
    band = lambda a, b: s[..., (hz >= a) & (hz < b)].sum(-1)
    low, mid, high, allb = band(90, 2200), band(1200, 3000), band(3000, 8000), band(60, 8000)
    db = 10 * torch.log10(low + 1e-6)
    o = ((db + 17) / 21).clamp(0, 1)
    o = o * (1 - 0.8 * (high / (allb + 1e-6)).clamp(0, 1))
    o = o ** 1.15
    r = 10 * torch.log10((mid + 1e-5) / (low + 1e-5))
    wd = ((r + 22) / 20).clamp(0, 1)
    wd = 0.5 + (wd - 0.5) * (o * 5).clamp(0, 1)

    def smooth(v):
        v = torch.cat([v[:, :1], v, v[:, -1:]], 1)
        return 0.25 * v[:, :-2] + 0.5 * v[:, 1:-1] + 0.25 * v[:, 2:]
    return smooth(o), smooth(wd)


def motion(x, frames, closed_first=None):
    """All that moves, [B, frames] each. Sway and blinks depend on the frame index alone, the nod and the
    brows on the smoothed opening. `closed_first` [B]: 1 where frame 0 shows a resting mouth."""
    o, wd = mouth(x, frames)
    b, dev = x.shape[0], x.device
    t = torch.arange(frames, device=dev, dtype=torch.float32)[None]
    k = torch.exp(-0.5 * (torch.arange(-12, 13, device=dev, dtype=torch.float32) / 4.5) ** 2)
    slow = torch.nn.functional.conv1d(o[:, None], (k / k.sum())[None, None], padding=12)[:, 0]
    ramp = 1 - torch.exp(-t / 7)
    # one blink of five frames about frame 28, then every 76 frames
    ph = (t - 28 + 38) % 76 - 38
    blink = (1 - (ph.abs() / 2.6) ** 2).clamp(0, 1) + 0 * o
    m = {"open": o, "wide": wd, "blink": blink, "brow": -5.0 * slow * ramp,
         "dx": 3.0 * torch.sin(2 * math.pi * t / 72) + 0 * o, "dy": 4.5 * slow * ramp,
         "turn": 0.02 * torch.sin(2 * math.pi * t / 88) + 0 * o}
    if closed_first is not None:
        f = (t == 0) * closed_first[:, None]
        m["open"] = m["open"] * (1 - f)
        m["wide"] = m["wide"] * (1 - f) + 0.5 * f
    return m


def mulaw_decode(u8):
    y = u8.float() / 255 * 2 - 1
    return torch.sign(y) * ((256.0 ** y.abs()) - 1) / 255


def mulaw_encode(x):
    y = torch.sign(x) * torch.log1p(255 * x.abs().clamp(0, 1)) / math.log(256)
    return ((y + 1) / 2 * 255).round().clamp(0, 255).to(torch.uint8)
