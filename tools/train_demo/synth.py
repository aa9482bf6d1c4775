"""Synthetic weights: every value a pure function of (seed, name, index)."""
import math

import numpy as np
import torch


def fnv1a64(name):
    h = 0xcbf29ce484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001b3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(seed, name, n):
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name) ^ seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -23) - np.float32(1))


def value(seed, name, shape, offset=0.0, scale=1.0):
    n = int(np.prod(shape)) if len(shape) else 1
    v = np.float32(offset) + np.float32(scale) * uniform(seed, name, n)
    return torch.from_numpy(v.astype(np.float32)).reshape(shape).bfloat16().float()


def rule(model, name, shape):
    last = name.split(".")[-1]
    if name.endswith("bias"):
        return 0, 0.02
    if last in ("gamma", "weight_g", "original0") or (len(shape) == 1 and last == "weight"):
        return 1, 0.1
    if last == "modulation":
        return 0, 0.2
    if name == "token_embedding.weight":
        return 0, 1
    if last in ("pos_embedding", "cls_embedding"):
        return 0, 0.3
    if name.endswith("pos_embedding.embedding.weight"):
        return 0, 0.5
    if len(shape) == 0:
        return 0, 0
    s = np.float32(math.sqrt(3 / (np.prod(shape) / shape[0])))
    if model == "t5" and name.endswith("attn.q.weight"):
        s = s * np.float32(0.25)
    return 0, s


def fill(module, model, seed, prefix=""):
    """Load a module with synthetic weights; `prefix` stands before each name in the file."""
    sd = {}
    for k, v in module.state_dict().items():
        o, s = rule(model, prefix + k, tuple(v.shape))
        sd[k] = value(seed, f"{model}/{prefix}{k}", tuple(v.shape), o, s)
    module.load_state_dict(sd)
    return module.eval()
