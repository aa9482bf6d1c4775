"""Held-out speech: python held.py OUT.npy [clips] [frames]: voices and sentences that training never uses."""
import random
import sys

import numpy as np

from speech import HELD_TEXT, HELD_VOICES, mulaw, speak


def clips(n=24, frames=75, seed=5):
    r = random.Random(seed)
    out = []
    for i in range(n):
        voice = HELD_VOICES[i % len(HELD_VOICES)]
        text = HELD_TEXT[(i * 5 + i // len(HELD_TEXT)) % len(HELD_TEXT)] + " " + HELD_TEXT[(i * 5 + 3) % len(HELD_TEXT)]
        x = speak(text, voice, r.randint(135, 185), r.randint(30, 70))[:frames * 640]
        x = np.pad(x, (0, frames * 640 - len(x)))
        out.append(mulaw(np.clip(x / np.sqrt((x ** 2).mean()) * 0.12, -1, 1)))
    return np.stack(out)


if __name__ == "__main__":
    a = clips(*(int(v) for v in sys.argv[2:]))
    np.save(sys.argv[1], a)
    print(a.shape, f"{a.nbytes / 1e6:.1f} MB")
