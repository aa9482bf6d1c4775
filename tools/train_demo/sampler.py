"""The three samplers (flow matching, x_sigma = (1 - sigma) x0 + sigma n, v = n - x0)."""
import math

import numpy as np
import torch


def shifted(s, shift):
    return shift * s / (1 + (shift - 1) * s)


def grid(name, steps, shift=5.0):
    """Sigmas (steps + 1) and timesteps (steps)."""
    if name == "Flow":
        lo = shifted(0.001, shift)
        s = shifted(np.linspace(1000, 1000 * lo, steps) / 1000, shift)
        return np.append(s, 0.0), s * 1000
    s = np.linspace(0.999 if name == "Flow_Unipc" else 1.0, 0, steps + 1)[:-1]
    s = shifted(s, shift)
    return np.append(s, 0.0), np.floor(s * 1000)


def lam(s):
    return math.inf if s <= 0 else -math.inf if s >= 1 else math.log((1 - s) / s)


def sample(model, x, name="Flow_Unipc", steps=8, shift=5.0, trace=None):
    """model(x, t) -> v; t is a float."""
    sig, ts = grid(name, steps, shift)
    prev, last = [], None           # earlier x0 predictions with their lambda; last = (sample, order) of the previous step
    for i in range(steps):
        s, n = float(sig[i]), float(sig[i + 1])
        v = model(x, float(ts[i]))
        if name == "Flow":
            x = x + (n - s) * v
        elif name == "Flow_DPM++":
            x0 = x - s * v
            if n == 0:
                x = x0
            elif s >= 1:
                x = n * x + (1 - n) * x0
            else:
                h, d = lam(n) - lam(s), x0
                if prev and math.isfinite(prev[-1][1]):
                    r = (lam(s) - prev[-1][1]) / h
                    d = x0 + (x0 - prev[-1][0]) * (0.5 / r)
                x = (n / s) * x - (1 - n) * math.expm1(-h) * d
            prev.append((x0, lam(s)))
        else:
            x0 = x - s * v
            if last is not None:                               # corrector from the previous step to here
                xs, ps, order = last
                x = unipc(xs, prev, ps, s, order, x0)
            prev.append((x0, lam(s)))
            order = 1 if i == 0 or i == steps - 1 else 2
            last = (x, s, order)
            x = unipc(x, prev, s, n, order, None)
        if trace is not None:
            trace.append(x)
    return x


def unipc(x, prev, s, n, order, new):
    """One bh2 step from sigma s to n; `new` is the x0 prediction at n (corrector) or None (predictor)."""
    m0, l0 = prev[-1]
    if n == 0:
        return m0                   # the limit: alpha = 1, sigma = 0, and the step is of order 1
    h = lam(n) - l0
    hh = -h
    hp1 = math.expm1(hh)
    bh = hp1
    d, rk = [], []
    if order == 2:
        r = (prev[-2][1] - l0) / h
        rk.append(r)
        d.append((prev[-2][0] - m0) / r)
    rk.append(1.0)
    rows, b, hk, fact = [], [], hp1 / hh - 1, 1
    for j in range(1, order + 1):
        rows.append([r ** (j - 1) for r in rk])
        b.append(hk * fact / bh)
        fact *= j + 1
        hk = hk / hh - 1 / fact
    base = (n / s) * x - (1 - n) * hp1 * m0
    res = 0.0
    if new is None:
        if order == 2:
            res = 0.5 * d[0]
    else:
        rho = [0.5] if order == 1 else list(np.linalg.solve(np.array(rows), np.array(b)))
        for q, dd in zip(rho, d):
            res = res + q * dd
        res = res + rho[-1] * (new - m0)
    return base - (1 - n) * bh * res
