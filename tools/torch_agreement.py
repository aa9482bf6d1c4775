#!/usr/bin/env python3
"""tools/torch_agreement.py ECHOMIMIC [--count N] [--seed N] [--keep DIR]

What our reader of .pth files accepts, PyTorch accepts too, with the same names, types, shapes and
bytes. Files are mutated: bytes of the pickle, its numbers and instructions, the archive's records,
the members. `ECHOMIMIC inspect --json` reads them all; each one that it takes is read by torch.load
(weights_only) in a child process, and the fingerprints must be equal. Prints the counts, and every
file on which the two disagree; exit status 1 if there is one, or fewer than a fifth were accepted.

Not in CI: it needs torch (2.10 or later), which the project otherwise does without:

    python3 -m venv /tmp/v && /tmp/v/bin/pip install torch && /tmp/v/bin/python tools/torch_agreement.py …

A file without the member `version` is read by us and refused by PyTorch; none is made here."""
import argparse
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

EDGE = 65536
BATCH = 500
ROOT = pathlib.Path(__file__).resolve().parent.parent

# ---- archives, as torch lays them out -----------------------------------------------------------


def archive(members, wide=False, front=False, align=64):
    """(name, bytes) of stored members -> the archive. wide: every number in zip64 fields; front:
    sizes in the members' own headers."""
    out, records = b"", []
    flags = 0x0800 if front else 0x0808
    for name, data in members:
        encoded, at, crc = name.encode(), len(out), zlib.crc32(data)
        pad = -(at + 30 + len(encoded) + 4) % align
        sizes = (crc, len(data), len(data)) if front else (0, 0, 0)
        out += struct.pack("<IHHHHHIIIHH", 0x04034B50, 0, flags, 0, 0, 0, *sizes, len(encoded), 4 + pad)
        out += encoded + b"FB" + struct.pack("<H", pad) + b"Z" * pad + data
        if not front:
            out += struct.pack("<IIII", 0x08074B50, crc, len(data), len(data))
        records.append((encoded, crc, len(data), at))
    at, directory = len(out), b""
    for encoded, crc, size, header in records:
        extra = struct.pack("<HHQQQ", 1, 24, size, size, header) if wide else b""
        most = 0xFFFFFFFF
        directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0, 0, flags, 0, 0, 0, crc,
                                 most if wide else size, most if wide else size, len(encoded),
                                 len(extra), 0, 0, 0, 0, most if wide else header)
        directory += encoded + extra
    end = at + len(directory)
    out += directory
    out += struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, len(records), len(records),
                       len(directory), at)
    out += struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    out += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(records), len(records), len(directory), at, 0)
    return out


def members_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return [(i.filename, z.read(i)) for i in z.infolist()]


# ---- good files to start from -------------------------------------------------------------------


def seeds():
    import torch
    g = torch.Generator().manual_seed(1)

    def some(*shape, dtype=torch.float32):
        t = torch.randn(*shape, generator=g) * 100
        return (t > 0) if dtype == torch.bool else t.to(dtype)

    base = some(6, 8)
    linear = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv3d(2, 2, 3))
    objects = [
        {"w": some(3, 4), "b": some(3)},
        {"v": base.t(), "s": base[1:4, 2:7], "e": base[:, :1].expand(6, 4), "c": base[::2]},
        {str(t).split(".")[1]: some(3, 2, dtype=t) for t in
         (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint8, torch.bool)},
        {"empty": torch.zeros(0, 3), "zero_d": torch.tensor(2.5), "one": torch.ones(1)},
        linear.state_dict(),
        {"state_dict": {"a": some(5)}, "epoch": 7, "lr": 0.5, "betas": [1, (2, 3)], "none": None},
        {"model": {"state_dict": {"模.w": some(2, 2), "x": some(1)}}, "args": {1: 2, "f": True}},
        {"p": torch.nn.Parameter(some(2, 3)), "q": torch.nn.Parameter(some(2), requires_grad=False)},
        {"x": base, "y": base, "z": base.view(-1)[5:9]},
        {f"blocks.{i}.w": some(2, 2) for i in range(40)},
        {"big": some(300, 257, dtype=torch.float16)},
        {"cl": some(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    ]
    files = []
    for o in objects:
        f = io.BytesIO()
        torch.save(o, f)
        files.append(f.getvalue())
    for path in sorted((ROOT / "tests/golden/media/pth").glob("*.pth")):
        data = path.read_bytes()
        if data[:4] == b"PK\x03\x04":
            files.append(data)
    return [members_of(f) for f in files]


# ---- mutations ----------------------------------------------------------------------------------

OPS = b"(.0125KMJGXUq rhj}])tabesuRbQNc\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x94"


def bend_pickle(r, data):
    """One small change: a byte, a number, an instruction, a stretch gone, doubled or moved."""
    b = bytearray(data)
    i, kind = r.randrange(len(b)), r.randrange(8)
    if kind == 0:
        b[i] = r.randrange(256)
    elif kind == 1:
        b[i] = OPS[r.randrange(len(OPS))]
    elif kind == 2:
        b[i] = (b[i] + r.choice((-1, 1))) & 255
    elif kind == 3:
        del b[i:i + r.randrange(1, 9)]
    elif kind == 4:
        j = r.randrange(len(b))
        b[i:i] = b[j:j + r.randrange(1, 40)]
    elif kind in (5, 6):  # a number of a shape, an offset, a stride
        at = [k for k in range(len(b) - 1) if b[k] == ord("K")]
        if at:
            k = r.choice(at)
            b[k + 1] = r.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 48, 255))
    else:  # a storage class for another
        names = [b"Float", b"Half", b"BFloat16", b"Double", b"Long", b"Int", b"Short", b"Char", b"Byte",
                 b"Bool", b"ComplexFloat", b"QInt8"]
        old = [n for n in names if b"\n" + n + b"Storage\n" in b]
        if old:
            b = bytearray(bytes(b).replace(b"\n" + r.choice(old) + b"Storage",
                                           b"\n" + r.choice(names) + b"Storage", 1))
    return bytes(b)


def rename_keys(r, data):
    """Another letter in a tensor's name: a good file stays good."""
    b = bytearray(data)
    at = [k for k in range(len(b) - 6) if b[k] == ord("X") and 0 < b[k + 1] < 60 and b[k + 2:k + 5] == b"\0\0\0"]
    if at:
        k = r.choice(at)
        b[k + 5 + r.randrange(b[k + 1])] = r.choice(b"abcxyz0189._/ \x01\xc3")
    return bytes(b)


def mutate(r, members):
    members = list(members)
    pkl = next(i for i, (n, _) in enumerate(members) if n.endswith("/data.pkl"))
    storages = [i for i, (n, _) in enumerate(members) if "/data/" in n]
    kind = r.choice(("pickle", "pickle", "pickle", "key", "key", "bytes", "bytes", "resize", "record",
                     "name", "order", "zip", "zip", "cut"))
    if kind == "pickle":
        data = members[pkl][1]
        for _ in range(r.choice((1, 1, 1, 2, 3))):
            data = bend_pickle(r, data)
        members[pkl] = (members[pkl][0], data)
    elif kind == "key":
        members[pkl] = (members[pkl][0], rename_keys(r, members[pkl][1]))
    elif kind in ("bytes", "resize") and storages:
        i = r.choice(storages)
        data = bytearray(members[i][1])
        if kind == "resize":
            data = data[:r.randrange(len(data) + 1)] if r.randrange(2) else data + bytes(r.randrange(9))
        elif data:
            data[r.randrange(len(data))] = r.randrange(256)
        members[i] = (members[i][0], bytes(data))
    elif kind == "record":
        top = members[pkl][0].split("/")[0]
        name = r.choice(("byteorder", "version", ".storage_alignment", ".format_version", ".data/version"))
        text = r.choice((b"little", b"big", b"3\n", b"3", b"10", b"11", b"0", b"64", b"1", b"", b"x", b"-3", b"03"))
        members = [m for m in members if m[0] != f"{top}/{name}"]
        members.insert(r.randrange(1, len(members) + 1), (f"{top}/{name}", text))
    elif kind == "name":
        i = r.randrange(len(members))
        if not members[i][0].endswith("/version"):
            name = bytearray(members[i][0].encode())
            name[r.randrange(len(name))] = r.choice(b"aAdD0123/._")
            members[i] = (name.decode("utf-8", "replace"), members[i][1])
    elif kind == "order":
        optional = ("byteorder", ".storage_alignment", ".format_version", ".data/serialization_id")
        rest = [m for m in members[1:] if not m[0].endswith(optional) or r.randrange(2)]
        r.shuffle(rest)
        members = members[:1] + rest
    data = bytearray(archive(members, wide=r.randrange(4) == 0, front=r.randrange(4) == 0,
                             align=r.choice((64, 64, 64, 1))))
    if kind == "zip":  # most of an archive is padding and bytes: aim at its records
        marks = [i for i in range(len(data) - 4) if data[i:i + 2] == b"PK"]
        for _ in range(r.choice((1, 1, 2))):
            i = min(r.choice(marks) + r.randrange(60), len(data) - 1)
            data[i] = r.choice((data[i] ^ 1 << r.randrange(8), r.randrange(256), 0, 255))
    elif kind == "cut":
        data = data[:r.randrange(len(data))] if r.randrange(2) else data + bytes(r.randrange(1, 30))
    return kind, bytes(data)


# ---- the two readers ----------------------------------------------------------------------------


def fingerprint(named):
    """io/fingerprint.h, in Python."""
    h = hashlib.sha256()
    for name, (dtype, shape, data) in sorted(named.items()):
        h.update(name + b"\0" + dtype.encode() + b"\0" + struct.pack("<Q", len(shape)))
        h.update(b"".join(struct.pack("<Q", d) for d in shape))
        h.update(data if len(data) <= EDGE else data[:EDGE] + data[-EDGE:])
    return h.hexdigest()


def torch_fingerprint(path):
    import torch
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
             torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
             torch.uint8: "U8", torch.bool: "BOOL"}
    d = torch.load(path, weights_only=True, map_location="cpu")
    while True:
        inner = [dict.get(d, k) for k in ("state_dict", "module", "model")]
        inner = [v for v in inner if isinstance(v, dict)]
        if not inner:
            break
        d = inner[0]
    named = {}
    for name, t in dict.items(d):
        if isinstance(name, str) and isinstance(t, torch.Tensor):
            # Of a truth value the byte, not what it counts as.
            b = t.detach().view(torch.uint8) if t.dtype == torch.bool else t.detach()
            flat = torch.empty(b.numel(), dtype=b.dtype).copy_(b.reshape(-1))
            raw = flat.view(torch.uint8).numpy().tobytes() if t.numel() else b""
            named[name.removeprefix("wav2vec2.").encode()] = (names[t.dtype], tuple(t.shape), raw)
    return fingerprint(named)


def child(tasks, answers):
    import warnings
    warnings.simplefilter("ignore")
    for path in iter(tasks.get, None):
        try:
            answers.put((path, torch_fingerprint(path), None))
        except Exception as e:  # whatever torch says no with
            answers.put((path, None, f"{type(e).__name__}: {e}"[:200]))


class Torch:
    """torch.load in a process that may die."""

    def __init__(self):
        self.context = multiprocessing.get_context("spawn")
        self.process = None

    def start(self):
        self.tasks, self.answers = self.context.Queue(), self.context.Queue()
        self.process = self.context.Process(target=child, args=(self.tasks, self.answers), daemon=True)
        self.process.start()

    def ask(self, path):
        if not self.process or not self.process.is_alive():
            self.start()
        self.tasks.put(path)
        while True:
            try:
                return self.answers.get(timeout=5)
            except Exception:  # nothing yet
                if not self.process.is_alive():
                    return path, None, f"torch died with status {self.process.exitcode}"


def ours(binary, folder):
    """path -> fingerprint of what we accept."""
    run = subprocess.run([binary, "inspect", "--json", folder], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode not in (0, 1, 3):
        sys.exit(f"{binary} inspect ended with {run.returncode}: {run.stderr[-2000:]}; files in {folder}")
    found = {}
    for line in run.stdout.splitlines():
        doc = json.loads(line)
        found[doc["file"]] = doc["fingerprint"]
    return found


def main():
    p = argparse.ArgumentParser()
    p.add_argument("echomimic")
    p.add_argument("--count", type=int, default=10000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--keep", default="torch-disagreements")
    a = p.parse_args()
    r, start, torch = random.Random(a.seed), seeds(), Torch()
    made, accepted, bad, kinds = 0, 0, 0, {}
    while made < a.count:
        folder = tempfile.mkdtemp(prefix="agree-")
        kind_of = {}
        for _ in range(min(BATCH, a.count - made)):
            kind, data = mutate(r, r.choice(start))
            path = os.path.join(folder, f"{made:06}.pth")
            pathlib.Path(path).write_bytes(data)
            kind_of[path] = kind
            made += 1
        found = ours(a.echomimic, folder)
        for path, kind in kind_of.items():
            row = kinds.setdefault(kind, [0, 0])
            row[0] += 1
            row[1] += path in found
        for path, mine in sorted(found.items()):
            accepted += 1
            _, theirs, why = torch.ask(path)
            if theirs != mine:
                bad += 1
                os.makedirs(a.keep, exist_ok=True)
                shutil.copy(path, a.keep)
                print(f"{os.path.basename(path)} ({kind_of[path]}): torch: {why or 'other bytes'}", flush=True)
        shutil.rmtree(folder)
        print(f"{made} files, {accepted} accepted by us, {bad} disagreements", flush=True)
    for kind, (n, ok) in sorted(kinds.items()):
        print(f"  {kind}: {n} files, {ok} accepted")
    sys.exit(1 if bad or accepted * 5 < made else 0)


if __name__ == "__main__":
    main()
