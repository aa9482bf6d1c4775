#!/usr/bin/env python3
"""tools/torch_data.py OUT: the files of tests/golden/torch, written by PyTorch 2.10 or later (see
tools/torch_agreement.py for how to have one).

OUT/pth/NAME.pth are the files; OUT/pth.safetensors holds, as NAME/TENSOR, what those that must be
read hold. A file that it does not mention must be refused. The same bytes on every run but for the
serialization ids."""
import io
import json
import pathlib
import struct
import sys
import zipfile

import torch

from torch_agreement import archive, members_of

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
         torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
         torch.uint8: "U8", torch.bool: "BOOL"}


def saved(o, **how):
    f = io.BytesIO()
    torch.save(o, f, **how)
    return f.getvalue()


def ramp(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    t = torch.arange(n).reshape(shape) * 3 - 7
    return t % 2 == 0 if dtype == torch.bool else t.to(dtype)


def deflated(data):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members_of(data):
            z.writestr(name, content)
    return f.getvalue()


def without(data, *names):
    return archive([m for m in members_of(data) if m[0].split("/", 1)[1] not in names])


def big_endian(data):
    """As a big-endian machine writes 4-byte numbers."""
    def turn(name, b):
        if name.endswith("/byteorder"):
            return b"big"
        if "/data/" not in name:
            return b
        return b"".join(b[i:i + 4][::-1] for i in range(0, len(b), 4))
    return archive([(n, turn(n, b)) for n, b in members_of(data)])


def script():
    f = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), f)
    return f.getvalue()


def good():
    """name -> (bytes, the dictionary of tensors that is in them)"""
    plain = {"w": ramp(3, 4), "b": ramp(3)}
    types = {str(t).split(".")[1]: ramp(3, 5, dtype=t) for t in NAMES}
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    for i, p in enumerate(model.parameters()):
        torch.nn.init.constant_(p, i + 0.5)
    adam = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    adam.step()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    base = ramp(4, 6)
    views = {"transposed": base.t(), "column": base[:, 2], "block": base[1:3, 1:4], "whole": base,
             "expanded": base[:, :1].expand(4, 3), "one_row": base[2:3], "last": base[3, 5]}
    return {
        "every_type": (saved(types), types),
        "zip64": (archive(members_of(saved(plain)), wide=True), plain),
        "sizes_in_front": (archive(members_of(saved(plain)), front=True), plain),
        "unaligned": (archive(members_of(saved(types)), align=1), types),
        "torch_1x": (without(saved(plain), "byteorder", ".format_version", ".storage_alignment",
                             ".data/serialization_id"), plain),
        "bare": (without(saved(plain), "byteorder", ".format_version", ".storage_alignment",
                         ".data/serialization_id", "version"), plain),
        "training": (saved({"epoch": 3, "model": model.state_dict(), "optimizer": adam.state_dict(),
                            "args": {"lr": 1e-3, "betas": (0.9, 0.999), "name": None}}), state),
        "views": (saved(views), views),
        "deep": (saved({"state_dict": {"module": {"model": plain}}}), plain),
    }


def refused():
    plain = {"w": ramp(3, 4)}
    return {
        "compressed": deflated(saved(plain)),
        "big_endian": big_endian(saved(plain)),
        "legacy": saved(plain, _use_new_zipfile_serialization=False),
        "protocol_4": saved(plain, pickle_protocol=4),
        "script": script(),
        "complex": saved({"w": torch.zeros(2, dtype=torch.complex64)}),
        "float8": saved({"w": torch.zeros(2).to(torch.float8_e4m3fn)}),
        "uint16": saved({"w": torch.zeros(2, dtype=torch.uint16)}),
        "sparse": saved({"w": torch.eye(3).to_sparse()}),
        "negative_bit": saved({"w": torch.zeros(2, dtype=torch.complex64).conj().imag}),
        "one_tensor": saved(ramp(3)),
        "a_list": saved([ramp(3)]),
        "module": saved(torch.nn.Linear(2, 2)),
        "no_tensors": saved({"ema": {"w": ramp(2)}, "step": 4}),
    }


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, t in sorted(tensors.items(), key=lambda kv: (-kv[1].element_size(), kv[0])):
        b = torch.empty(t.numel(), dtype=t.dtype).copy_(t.detach().reshape(-1)).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(b)]}
        data += b
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    out = pathlib.Path(sys.argv[1])
    (out / "pth").mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (data, holds) in good().items():
        (out / "pth" / f"{name}.pth").write_bytes(data)
        tensors.update({f"{name}/{k}": v for k, v in holds.items()})
    for name, data in refused().items():
        (out / "pth" / f"{name}.pth").write_bytes(data)
    write_safetensors(out / "pth.safetensors", tensors)


main()
