"""Make the training speech with espeak-ng: python speech.py OUT.npy SECONDS [seed]

Writes 8-bit mu-law at 16 kHz, sentences of many voices one after another with pauses. Held-out voices
(HELD_VOICES) and held-out sentences (HELD_TEXT) are never used here.
"""
import io
import random
import subprocess
import sys
import wave

import numpy as np

ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029"]
VARIANTS = ["", "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f4", "Alex", "Andy", "Alicia", "Andrea", "Annie",
            "Belinda", "David", "Denis", "Ed", "Gene", "Iven", "Jacky", "John", "Lee", "Marco", "Mario", "Max", "Michel",
            "Mike", "Paul", "Quincy", "Rob", "Steph", "Travis", "Zac", "Hugo", "Diogo", "grandma"]
HELD_VOICES = ["en-us+Linda", "en-gb+Michael", "en-gb-scotland+f5", "en-us+Pablo", "en-gb-x-rp+Robert", "en-us+Steph2",
               "en-gb+Adam", "en-029+m5"]
HELD_TEXT = [
    "Hello, I am a small model and I live in this folder.",
    "The quick brown fox jumps over the lazy dog.",
    "Good morning, how was your weekend by the sea?",
    "Please water the plants before you leave the house.",
    "We have been waiting for the bus since half past nine.",
    "Every voice finds its own way to open a mouth.",
    "My grandmother used to bake apple pies on Sundays.",
    "Can you hear me now, or should I speak louder?",
    "Seven purple balloons floated over the market square.",
    "It is never too late to learn how to play the violin.",
    "The weather will be mild with a little rain tonight.",
    "Open source software is built by people who share.",
]

WHO = "the captain|my brother|a young doctor|the old teacher|our neighbour|the baker|your cousin|a quiet boy|the queen|some people|the engineer|a tall woman|nobody|everyone|the night guard|her uncle|a painter|the whole team|the judge|one of them".split("|")
DID = "walked|ran|looked|moved|travelled|hurried|pointed|climbed|danced|listened|worked|waited|laughed|wandered|sailed|stood|slept|argued|sang|knocked".split("|")
HOW = "slowly|quickly|again|without a word|all day long|very carefully|in the dark|for an hour|with great joy|as usual|at once|every evening|under the moon|for no reason|together|until midnight".split("|")
WHERE = "towards the river|in the garden|behind the church|over the hill|through the narrow street|near the station|at the edge of the forest|on the bridge|inside a large yellow building|around the lake|by the window|across the ocean|beside the fire|above the clouds|on the second floor|between two mountains".split("|")
SAID = "I think that|you should know that|they told me that|remember that|it seems that|we are glad that|believe me,|of course|perhaps|yesterday|this afternoon|in the year two thousand and five|sometimes|after all|well,|no,|yes,|listen,".split("|")
IDIOM = "What time is it|Could you open the door, please|Thank you very much for your help|How much does this cost|I would like a cup of coffee|Happy birthday to you|See you tomorrow at eight o'clock|Do not worry about the money|That is exactly what I mean|Let us begin with a simple question|Where did you put the keys|Welcome to the show, ladies and gentlemen|It works on my machine|Zero, one, two, three, four, five, six|Monday, Tuesday, Wednesday, Thursday, Friday|Oh wow, that is amazing|I am so sorry to hear that|Never change a running system|Big blue boats bob by the beach|She sells sea shells on the shore|Peter Piper picked a peck of pickled peppers|Why are you whispering|A, E, I, O, U|Mama made a marvellous meal|Keep it short and simple".split("|")


def sentence(r):
    if r.random() < 0.3:
        return r.choice(IDIOM) + r.choice(".?!")
    s = f"{r.choice(WHO)} {r.choice(DID)} {r.choice(HOW)} {r.choice(WHERE)}"
    if r.random() < 0.5:
        s = f"{r.choice(SAID)} {s}"
    if r.random() < 0.25:
        s += f", and {r.choice(WHO)} {r.choice(DID)} {r.choice(WHERE)}"
    return s[0].upper() + s[1:] + r.choice("..?!")


def speak(text, voice, speed=160, pitch=50, amplitude=100):
    """Mono float32 at 16 kHz, silence trimmed at both ends."""
    out = subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-a", str(amplitude), "--stdout", text],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    w = wave.open(io.BytesIO(out))
    x = np.frombuffer(out[44:], dtype="<i2").astype(np.float32) / 32768
    import soxr
    x = soxr.resample(x, w.getframerate(), 16000, quality="HQ")
    loud = np.flatnonzero(np.abs(x) > 0.01 * np.abs(x).max())
    return x[max(0, loud[0] - 320):loud[-1] + 800] if len(loud) else x


def mulaw(x):
    y = np.sign(x) * np.log1p(255 * np.minimum(np.abs(x), 1)) / np.log(256)
    return np.clip(np.round((y + 1) / 2 * 255), 0, 255).astype(np.uint8)


def main():
    path, seconds = sys.argv[1], float(sys.argv[2])
    r = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    parts, n, k = [], 0, 0
    while n < seconds * 16000:
        v = r.choice(ACCENTS)
        var = r.choice(VARIANTS)
        voice = f"{v}+{var}" if var else v
        if voice in HELD_VOICES:
            continue
        try:
            x = speak(sentence(r), voice, r.randint(125, 210), r.randint(20, 85))
        except Exception:
            continue
        if len(x) < 8000:
            continue
        x = x / (np.sqrt((x ** 2).mean()) + 1e-6) * 0.12
        parts += [mulaw(np.clip(x, -1, 1)), np.full(int(16000 * r.uniform(0.05, 0.5)), 128, np.uint8)]
        n += sum(len(p) for p in parts[-2:])
        k += 1
    a = np.concatenate(parts)[:int(seconds * 16000)]
    np.save(path, a)
    print(f"{k} sentences, {len(a) / 16000:.0f} s, {a.nbytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
