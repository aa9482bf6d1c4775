"""Write share/portraits and share/voices: python family.py SHARE_DIR [look]"""
import json
import os
import sys
import wave

import numpy as np
import torch
from PIL import Image

import portrait as P
from speech import speak

# name: (seed, hair style); a seed draws one portrait. None of these seeds is used in training.
NAMES = {"ada": (9001, 2), "ben": (9002, 0), "cleo": (9003, 3), "dov": (9004, 5), "emi": (9005, 4), "fay": (9006, 1),
         "gus": (9007, 0), "hana": (9008, 1), "ivo": (9009, 5), "june": (9010, 2), "kofi": (9011, 3), "lena": (9012, 4)}

VOICES = {  # name: (voice, words a minute, pitch, text); voices and sentences that training never used
    "linda": ("en-us+Linda", 170, 55, "Hello! I am a very small model."),
    "michael": ("en-gb+Michael", 175, 45, "Good morning, how was your weekend?"),
    "robert": ("en-gb-x-rp+Robert", 185, 50, "The quick brown fox jumps over the lazy dog."),
    "pablo": ("en-us+Pablo", 175, 48, "Can you hear me now, or should I speak louder?"),
    "adam": ("en-gb+Adam", 180, 50, "Open source is built by people who share."),
    "scotia": ("en-gb-scotland+f5", 178, 55, "Every voice finds its own way to open a mouth."),
}


def portrait(seed, style):
    p = P.sample(1, torch.Generator().manual_seed(seed))
    p["style"][:] = style
    return p


def still(p):
    im = P.draw(p, P.rest(1), *P.grid(1))[0, :, 0]
    return ((im + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def flat(p):
    return {k: [round(float(x), 5) for x in v[0]] if v.dim() == 2 else round(float(v[0]), 5) for k, v in p.items()}


def load(d):
    """A portrait's entry of portraits.json -> parameters [1], [1, 3]."""
    return {k: torch.tensor([v], dtype=torch.float32) for k, v in d["parameters"].items()}


def main():
    root = sys.argv[1]
    os.makedirs(root + "/portraits", exist_ok=True)
    os.makedirs(root + "/voices", exist_ok=True)
    out = {}
    for n, (seed, style) in NAMES.items():
        p = portrait(seed, style)
        Image.fromarray(still(p)).save(f"{root}/portraits/{n}.png", optimize=True)
        out[n] = {"file": n + ".png", "mouth": {"x": round(float(p["cx"]), 2), "y": round(float(p["cy"] + p["mouth_dy"]), 2),
                                               "half_width": round(float(p["mouth_w"]), 2)}, "hair": P.HAIR[style], "parameters": flat(p)}
    json.dump(out, open(root + "/portraits/portraits.json", "w"), indent=1)
    for n, (voice, speed, pitch, text) in VOICES.items():
        x = speak(text, voice, speed, pitch)
        x = x / np.abs(x).max() * 0.6
        with wave.open(f"{root}/voices/{n}.wav", "wb") as w:
            w.setnchannels(1)
            w.setsampwidth(2)
            w.setframerate(16000)
            w.writeframes((x * 32767).astype("<i2").tobytes())
        print(f"{n}: {voice}, {len(x) / 16000:.2f} s: {text}")


if __name__ == "__main__":
    main()
