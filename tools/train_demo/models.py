"""The five networks, written from the shapes and equations of the model family.

Parameter names are the released checkpoints' names, so `state_dict()` is the file layout.
Every module computes in the dtype of its input; parameters stay float32 while training.
Activations of the VAE are kept as [batch, time, height, width, channel].
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

LATENT_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
               0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
LATENT_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
              3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]

# ---------------------------------------------------------------- VAE

CONV_MODE = "3d"        # "3d": one conv3d; "2d": time taps stacked on the channels, then one conv2d


def rms_silu_rows(x, gamma):
    f = x.float()
    n = f.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    f = f / n * (math.sqrt(x.shape[-1])) * gamma
    return (f * torch.sigmoid(f)).to(x.dtype)


NORM_SILU = rms_silu_rows    # a training run may put a compiled version here


class RMS(nn.Module):
    def __init__(self, c, spatial):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(c, *([1] * spatial)))

    def silu(self, x):
        return NORM_SILU(x.reshape(-1, x.shape[-1]), self.gamma.reshape(-1)).view(x.shape)

    def forward(self, x):
        f = x.float()
        f = f / f.norm(dim=-1, keepdim=True).clamp_min(1e-12) * math.sqrt(x.shape[-1]) * self.gamma.reshape(-1)
        return f.to(x.dtype)


def conv2d_last(x, w, b, stride=1, padding=0):
    """x: [N, H, W, C] contiguous."""
    y = F.conv2d(x.permute(0, 3, 1, 2), w.to(x.dtype).contiguous(memory_format=torch.channels_last), b.to(x.dtype),
                 stride=stride, padding=padding)
    return y.permute(0, 2, 3, 1).contiguous()


class CausalConv(nn.Module):
    """3x3x3 or 3x1x1 convolution; two zero frames stand before the first."""

    def __init__(self, i, o, k=3, ks=3):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(o, i, k, ks, ks))
        self.bias = nn.Parameter(torch.zeros(o))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(3))
        self.k, self.p = k, ks // 2

    def forward(self, x, stride_t=1, pad_t=None):
        b, t, h, w, c = x.shape
        wt = self.weight
        pad = self.k - 1 if pad_t is None else pad_t
        if self.k == 1 and self.p == 0:
            return F.linear(x, wt.reshape(wt.shape[0], c).to(x.dtype), self.bias.to(x.dtype))
        if pad:
            x = torch.cat([x.new_zeros(b, pad, h, w, c), x], 1)
        if CONV_MODE == "3d":
            y = F.conv3d(x.permute(0, 4, 1, 2, 3), wt.to(x.dtype).contiguous(memory_format=torch.channels_last_3d), self.bias.to(x.dtype),
                         stride=(stride_t, 1, 1), padding=(0, self.p, self.p))
            return y.permute(0, 2, 3, 4, 1).contiguous()
        n = (x.shape[1] - self.k) // stride_t + 1
        x = torch.cat([x[:, j:j + (n - 1) * stride_t + 1:stride_t] for j in range(self.k)], -1)
        w2 = wt.permute(0, 2, 1, 3, 4).reshape(wt.shape[0], self.k * c, wt.shape[3], wt.shape[4])
        if self.p == 0:
            return F.linear(x, w2.reshape(w2.shape[0], -1).to(x.dtype), self.bias.to(x.dtype))
        y = conv2d_last(x.reshape(b * n, h, w, -1), w2, self.bias, padding=self.p)
        return y.view(b, n, h, w, -1)


class Conv2d(nn.Module):
    def __init__(self, i, o, k):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(3))

    def forward(self, x, stride=1, padding=0):
        b, t, h, w, c = x.shape
        if self.weight.shape[-1] == 1:
            return F.linear(x, self.weight.flatten(1).to(x.dtype), self.bias.to(x.dtype))
        y = conv2d_last(x.reshape(b * t, h, w, c), self.weight, self.bias, stride, padding)
        return y.view(b, t, *y.shape[1:])


class Res(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.residual = nn.ModuleDict({"0": RMS(i, 3), "2": CausalConv(i, o), "3": RMS(o, 3), "6": CausalConv(o, o)})
        if i != o:
            self.shortcut = CausalConv(i, o, 1, 1)

    def forward(self, x):
        r = self.residual
        y = r["2"](r["0"].silu(x))
        y = r["6"](r["3"].silu(y))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class FrameAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = RMS(c, 2)
        self.to_qkv = Conv2d(c, 3 * c, 1)
        self.proj = Conv2d(c, c, 1)

    def forward(self, x):
        b, t, h, w, c = x.shape
        q, k, v = self.to_qkv(self.norm(x)).view(b * t, 1, h * w, 3 * c).split(c, -1)
        a = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(a.reshape(b, t, h, w, c))


class Down(nn.Module):
    def __init__(self, c, time):
        super().__init__()
        self.resample = nn.ModuleDict({"1": Conv2d(c, c, 3)})
        if time:
            self.time_conv = CausalConv(c, c, 3, 1)

    def forward(self, x):
        x = self.resample["1"](F.pad(x, (0, 0, 0, 1, 0, 1)), stride=2)
        if hasattr(self, "time_conv") and x.shape[1] > 1:
            x = torch.cat([x[:, :1], self.time_conv(x, stride_t=2, pad_t=0)], 1)
        return x


class Up(nn.Module):
    def __init__(self, c, time):
        super().__init__()
        self.resample = nn.ModuleDict({"1": Conv2d(c, c // 2, 3)})
        if time:
            self.time_conv = CausalConv(c, 2 * c, 3, 1)

    def forward(self, x):
        b, t, h, w, c = x.shape
        if hasattr(self, "time_conv") and t > 1:
            y = self.time_conv(x[:, 1:]).view(b, t - 1, h, w, 2, c)
            y = y.permute(0, 1, 4, 2, 3, 5).reshape(b, 2 * (t - 1), h, w, c)
            x = torch.cat([x[:, :1], y], 1)
        x = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2, -1).reshape(b, x.shape[1], 2 * h, 2 * w, c)
        return self.resample["1"](x, padding=1)


def seq(mods):
    return nn.ModuleDict({str(i): m for i, m in enumerate(mods)})


class Encoder(nn.Module):
    def __init__(self, d, z2):
        super().__init__()
        self.conv1 = CausalConv(3, d)
        mods, c = [], d
        for s, m in enumerate((1, 2, 4, 4)):
            for _ in range(2):
                mods.append(Res(c, d * m))
                c = d * m
            if s < 3:
                mods.append(Down(c, s > 0))
        self.downsamples = seq(mods)
        self.middle = seq([Res(c, c), FrameAttention(c), Res(c, c)])
        self.head = nn.ModuleDict({"0": RMS(c, 3), "2": CausalConv(c, z2)})

    def forward(self, x):
        x = self.conv1(x)
        for m in (*self.downsamples.values(), *self.middle.values()):
            x = m(x)
        return self.head["2"](self.head["0"].silu(x))


class Decoder(nn.Module):
    def __init__(self, d, z):
        super().__init__()
        c = 4 * d
        self.conv1 = CausalConv(z, c)
        self.middle = seq([Res(c, c), FrameAttention(c), Res(c, c)])
        mods = []
        for s, m in enumerate((4, 4, 2, 1)):
            for _ in range(3):
                mods.append(Res(c, d * m))
                c = d * m
            if s < 3:
                mods.append(Up(c, s < 2))
                c //= 2
        self.upsamples = seq(mods)
        self.head = nn.ModuleDict({"0": RMS(c, 3), "2": CausalConv(c, 3)})

    def forward(self, x):
        x = self.conv1(x)
        for m in (*self.middle.values(), *self.upsamples.values()):
            x = m(x)
        return self.head["2"](self.head["0"].silu(x))


class VAE(nn.Module):
    """Video as [B, 3, T, H, W] in [-1, 1], T = 1 + 4k. The whole clip at once: with zeros before the
    first frame this equals the chunk-by-chunk form."""

    def __init__(self, dim=16, z=16):
        super().__init__()
        self.encoder = Encoder(dim, 2 * z)
        self.decoder = Decoder(dim, z)
        self.conv1 = CausalConv(2 * z, 2 * z, 1, 1)
        self.conv2 = CausalConv(z, z, 1, 1)
        self.register_buffer("m", torch.tensor(LATENT_MEAN), persistent=False)
        self.register_buffer("s", torch.tensor(LATENT_STD), persistent=False)

    def encode_raw(self, video):
        x = video.permute(0, 2, 3, 4, 1).contiguous()
        return self.conv1(self.encoder(x))[..., :16]

    def decode_raw(self, mu):
        return self.decoder(self.conv2(mu)).permute(0, 4, 1, 2, 3)

    def encode(self, video):
        z = (self.encode_raw(video).float() - self.m) / self.s
        return z.permute(0, 4, 1, 2, 3)

    def decode(self, z, dtype=None):
        mu = z.permute(0, 2, 3, 4, 1).float() * self.s + self.m
        return self.decode_raw(mu.to(dtype or z.dtype)).float().clamp(-1, 1)


# ---------------------------------------------------------------- wav2vec2

class ConvLayer(nn.Module):
    def __init__(self, i, o, k, s, norm):
        super().__init__()
        self.conv = nn.Conv1d(i, o, k, s, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        if norm:
            self.layer_norm = nn.GroupNorm(o, o, eps=1e-5)

    def forward(self, x):
        x = self.conv(x)
        if hasattr(self, "layer_norm"):
            x = self.layer_norm(x)
        return F.gelu(x)


class W2VLayer(nn.Module):
    def __init__(self, h, ff, heads):
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({n: nn.Linear(h, h) for n in ("k_proj", "v_proj", "q_proj", "out_proj")})
        self.layer_norm = nn.LayerNorm(h)
        self.feed_forward = nn.ModuleDict({"intermediate_dense": nn.Linear(h, ff), "output_dense": nn.Linear(ff, h)})
        self.final_layer_norm = nn.LayerNorm(h)

    def forward(self, x):
        b, t, h = x.shape
        a = self.attention
        q, k, v = (a[n](x).view(b, t, self.heads, -1).transpose(1, 2) for n in ("q_proj", "k_proj", "v_proj"))
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, h)
        x = self.layer_norm(x + a["out_proj"](o))
        f = self.feed_forward
        return self.final_layer_norm(x + f["output_dense"](F.gelu(f["intermediate_dense"](x))))


class Wav2Vec2(nn.Module):
    KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)

    def __init__(self, hidden=64, layers=4, heads=4, ff=128, conv=64, pos_k=16, pos_groups=4):
        super().__init__()
        self.feature_extractor = nn.ModuleDict({"conv_layers": nn.ModuleList(
            ConvLayer(1 if i == 0 else conv, conv, k, s, i == 0) for i, (k, s) in enumerate(zip(self.KERNELS, self.STRIDES)))})
        self.feature_projection = nn.ModuleDict({"layer_norm": nn.LayerNorm(conv), "projection": nn.Linear(conv, hidden)})
        pos = nn.Conv1d(hidden, hidden, pos_k, padding=pos_k // 2, groups=pos_groups)
        pos = torch.nn.utils.parametrizations.weight_norm(pos, dim=2)
        self.encoder = nn.ModuleDict({"pos_conv_embed": nn.ModuleDict({"conv": pos}), "layer_norm": nn.LayerNorm(hidden),
                                      "layers": nn.ModuleList(W2VLayer(hidden, ff, heads) for _ in range(layers))})
        self.pos_k = pos_k

    def features(self, wave, frames):
        x = wave[:, None]
        for m in self.feature_extractor["conv_layers"]:
            x = m(x)
        t = x.shape[-1]
        if frames == 1:
            pos = torch.zeros(1, device=x.device)
        else:
            pos = torch.arange(frames, device=x.device, dtype=torch.float32) * torch.tensor((t - 1) / (frames - 1), dtype=torch.float32, device=x.device)
        i = pos.long().clamp(0, t - 1)
        j = (i + 1).clamp_max(t - 1)
        f = pos - i
        return (x[:, :, i] * (1 - f) + x[:, :, j] * f).transpose(1, 2)

    def forward(self, wave, frames):
        """Hidden states 1..layers: [B, frames, layers, hidden]; the second value has hidden state 0 too."""
        x = self.features(wave, frames)
        x = self.feature_projection["projection"](self.feature_projection["layer_norm"](x))
        p = self.encoder["pos_conv_embed"]["conv"](x.transpose(1, 2))
        if self.pos_k % 2 == 0:
            p = p[:, :, :-1]
        x = self.encoder["layer_norm"](x + F.gelu(p).transpose(1, 2))
        out = []
        for m in self.encoder["layers"]:
            x = m(x)
            out.append(x)
        return torch.stack(out, 2)


def audio_windows(h):
    """[B, F, layers, C] -> [B, F, 5, layers, C], clamped at both ends."""
    n = h.shape[1]
    i = torch.arange(n, device=h.device)[:, None] + torch.arange(-2, 3, device=h.device)
    return h[:, i.clamp(0, n - 1)]


# ---------------------------------------------------------------- UMT5 encoder

class T5Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype) * self.weight


class T5Block(nn.Module):
    def __init__(self, d, da, ff, heads):
        super().__init__()
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.heads = heads
        self.norm1, self.norm2 = T5Norm(d), T5Norm(d)
        self.attn = nn.ModuleDict({"q": lin(d, da), "k": lin(d, da), "v": lin(d, da), "o": lin(da, d)})
        self.ffn = nn.ModuleDict({"gate": nn.ModuleDict({"0": lin(d, ff)}), "fc1": lin(d, ff), "fc2": lin(ff, d)})
        self.pos_embedding = nn.ModuleDict({"embedding": nn.Embedding(32, heads)})

    def forward(self, x):
        n, _ = x.shape
        r = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        a = r.abs()
        far = 8 + (torch.log(a.clamp_min(1).float() / 8) / math.log(16) * 8).long()
        b = torch.where(a < 8, a, far.clamp_max(15)) + 16 * (r > 0)
        y = self.norm1(x)
        q, k, v = (self.attn[i](y).view(n, self.heads, -1).transpose(0, 1) for i in "qkv")
        s = q @ k.transpose(1, 2) + self.pos_embedding["embedding"](b.to(x.device)).permute(2, 0, 1)
        x = x + self.attn["o"]((s.float().softmax(-1).to(x.dtype) @ v).transpose(0, 1).reshape(n, -1))
        y = self.norm2(x)
        return x + self.ffn["fc2"](self.ffn["fc1"](y) * F.gelu(self.ffn["gate"]["0"](y), approximate="tanh"))


class UMT5(nn.Module):
    def __init__(self, vocab=512, dim=64, dim_attn=64, ff=128, heads=4, layers=3):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(T5Block(dim, dim_attn, ff, heads) for _ in range(layers))
        self.norm = T5Norm(dim)

    def forward(self, ids):
        x = self.token_embedding(ids)
        for b in self.blocks:
            x = b(x)
        return self.norm(x)


# ---------------------------------------------------------------- CLIP visual tower

class ClipBlock(nn.Module):
    def __init__(self, d, heads, ratio):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.ModuleDict({"to_qkv": nn.Linear(d, 3 * d), "proj": nn.Linear(d, d)})
        self.mlp = nn.ModuleDict({"0": nn.Linear(d, ratio * d), "2": nn.Linear(ratio * d, d)})

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.attn["to_qkv"](self.norm1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp["2"](F.gelu(self.mlp["0"](self.norm2(x))))


class ClipVisual(nn.Module):
    MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, dim=32, heads=2, layers=2, ratio=4, embed=32):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, dim, 14, 14, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 257, dim))
        self.pre_norm, self.post_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.transformer = nn.ModuleList(ClipBlock(dim, heads, ratio) for _ in range(layers))
        self.head = nn.Parameter(torch.zeros(dim, embed))

    def resize(self, image):
        return F.interpolate(image.float(), (224, 224), mode="bicubic", align_corners=False)

    def forward(self, image):
        """[B, 3, H, W] in [-1, 1] -> [B, 257, dim]; the last block is not run."""
        x = self.resize(image) * 0.5 + 0.5
        c = lambda v: torch.tensor(v, device=x.device)[:, None, None]
        x = self.patch_embedding((x - c(self.MEAN)) / c(self.STD)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_embedding.expand(x.shape[0], -1, -1), x], 1) + self.pos_embedding
        x = self.pre_norm(x)
        for b in self.transformer[:-1]:
            x = b(x)
        return x


# ---------------------------------------------------------------- diffusion transformer

def lin(m, x):
    return F.linear(x, m.weight.to(x.dtype), m.bias.to(x.dtype))


def norm(x, w=None, b=None, eps=1e-6):
    y = F.layer_norm(x.float(), (x.shape[-1],), w, b, eps)
    return y.to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        f = x.float()
        return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


def rope_angles(f, h, w, head_dim, device="cpu", riflex=None):
    c = head_dim // 2
    parts = (c - 2 * (c // 3), c // 3, c // 3)
    axes = []
    for n, p in zip((f, h, w), parts):
        inv = 10000.0 ** (-torch.arange(p, dtype=torch.float64) / p)
        if riflex and not axes:
            k, length = riflex
            inv[k - 1] = 0.9 * 2 * math.pi / length / 4.886
        axes.append(torch.arange(n, dtype=torch.float64)[:, None] * inv)
    a = torch.cat([axes[0][:, None, None].expand(f, h, w, -1), axes[1][None, :, None].expand(f, h, w, -1),
                   axes[2][None, None].expand(f, h, w, -1)], -1).reshape(f * h * w, c)
    return a.to(device)


def rotate(x, cos, sin):
    """x: [B, N, heads, D]; pairs are neighbours."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


def attend(q, k, v):
    """[B, N, heads, D] each."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d), RMSNorm(d)


class CrossAttention(SelfAttention):
    def __init__(self, d):
        super().__init__(d)
        for s in ("img", "audio"):
            setattr(self, "k_" + s, nn.Linear(d, d))
            setattr(self, "v_" + s, nn.Linear(d, d))
            setattr(self, "norm_k_" + s, RMSNorm(d))
        self.q_audio = nn.Linear(d, d)          # in the released file, never used


class Block(nn.Module):
    def __init__(self, d, ff, heads):
        super().__init__()
        self.heads = heads
        self.self_attn, self.cross_attn = SelfAttention(d), CrossAttention(d)
        self.norm3 = nn.LayerNorm(d)
        self.ffn = nn.ModuleDict({"0": nn.Linear(d, ff), "2": nn.Linear(ff, d)})
        self.modulation = nn.Parameter(torch.randn(1, 6, d) / math.sqrt(d))

    def forward(self, x, e0, cos, sin, text, image, audio):
        """x [B, N, d], e0 [B, 6, d]; text and image [B, n, d]; audio [B, f, n, d]."""
        b, n, d = x.shape
        m = (self.modulation + e0.float()).to(x.dtype)
        s1, c1, g1, s2, c2, g2 = (m[:, i, None] for i in range(6))
        heads = lambda t: t.unflatten(-1, (self.heads, -1))
        a = self.self_attn
        y = norm(x) * (1 + c1) + s1
        q = rotate(heads(a.norm_q(lin(a.q, y))), cos, sin)
        k = rotate(heads(a.norm_k(lin(a.k, y))), cos, sin)
        x = x + g1 * lin(a.o, attend(q, k, heads(lin(a.v, y))))

        a = self.cross_attn
        q = heads(a.norm_q(lin(a.q, norm(x, self.norm3.weight, self.norm3.bias))))
        o = attend(q, heads(a.norm_k(lin(a.k, text))), heads(lin(a.v, text)))
        o = o + attend(q, heads(a.norm_k_img(lin(a.k_img, image))), heads(lin(a.v_img, image)))
        f, t = audio.shape[1:3]
        ka = heads(a.norm_k_audio(lin(a.k_audio, audio))).flatten(0, 1)
        va = heads(lin(a.v_audio, audio)).flatten(0, 1)
        o = o + attend(q.reshape(b * f, n // f, *q.shape[2:]), ka, va).reshape(b, n, d)
        x = x + lin(a.o, o)

        y = norm(x) * (1 + c2) + s2
        return x + g2 * lin(self.ffn["2"], F.gelu(lin(self.ffn["0"], y), approximate="tanh"))


class AudioInjection(nn.Module):
    def __init__(self, d, feat, mid, tokens):
        super().__init__()
        self.proj1, self.proj1_vf = nn.Linear(5 * feat, mid), nn.Linear(8 * feat, mid)
        self.proj2, self.proj3 = nn.Linear(mid, mid), nn.Linear(mid, tokens * d)
        self.norm = nn.LayerNorm(d)
        self.d = d

    def forward(self, win):
        """[B, F, 5, layers, C] -> [B, f, tokens, d]"""
        b, n = win.shape[:2]
        first = F.relu(lin(self.proj1, win[:, :1].flatten(2)))
        if n > 1:
            g = win[:, 1:].unflatten(1, (-1, 4))
            w8 = torch.cat([g[:, :, 0, :3], g[:, :, 1, 2:3], g[:, :, 2, 2:3], g[:, :, 3, 2:]], 2).flatten(2)
            first = torch.cat([first, F.relu(lin(self.proj1_vf, w8))], 1)
        y = lin(self.proj3, F.relu(lin(self.proj2, first))).unflatten(-1, (-1, self.d))
        return norm(y, self.norm.weight, self.norm.bias, 1e-5)


class DiT(nn.Module):
    def __init__(self, dim=256, ffn_dim=1024, num_heads=2, num_layers=5, freq_dim=64, text_dim=64, text_len=512,
                 in_dim=36, out_dim=16, eps=1e-6, clip_dim=32, audio_feat=4 * 64, audio_mid=128, audio_tokens=8):
        super().__init__()
        self.freq_dim, self.text_len, self.out_dim, self.head_dim = freq_dim, text_len, out_dim, dim // num_heads
        self.audio_injection = AudioInjection(dim, audio_feat, audio_mid, audio_tokens)
        self.patch_embedding = nn.Conv3d(in_dim, dim, (1, 2, 2), (1, 2, 2))
        self.text_embedding = nn.ModuleDict({"0": nn.Linear(text_dim, dim), "2": nn.Linear(dim, dim)})
        self.time_embedding = nn.ModuleDict({"0": nn.Linear(freq_dim, dim), "2": nn.Linear(dim, dim)})
        self.time_projection = nn.ModuleDict({"1": nn.Linear(dim, 6 * dim)})
        self.blocks = nn.ModuleList(Block(dim, ffn_dim, num_heads) for _ in range(num_layers))
        self.head = nn.Module()
        self.head.head = nn.Linear(dim, out_dim * 4)
        self.head.modulation = nn.Parameter(torch.randn(1, 2, dim) / math.sqrt(dim))
        self.img_emb = nn.Module()
        self.img_emb.proj = nn.ModuleDict({"0": nn.LayerNorm(clip_dim), "1": nn.Linear(clip_dim, clip_dim),
                                           "3": nn.Linear(clip_dim, dim), "4": nn.LayerNorm(dim)})

    def time(self, t):
        half = self.freq_dim // 2
        a = t.double()[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
        s = torch.cat([a.cos(), a.sin()], 1).float()
        te = self.time_embedding
        e = lin(te["2"], F.silu(lin(te["0"], s)))
        return e, lin(self.time_projection["1"], F.silu(e)).unflatten(1, (6, -1))

    def text(self, rows):
        """[B, L, text_dim], padded with zero rows to text_len."""
        x = F.pad(rows, (0, 0, 0, self.text_len - rows.shape[1]))
        return lin(self.text_embedding["2"], F.gelu(lin(self.text_embedding["0"], x), approximate="tanh"))

    def image(self, tokens):
        p = self.img_emb.proj
        y = F.gelu(lin(p["1"], norm(tokens, p["0"].weight, p["0"].bias, 1e-5)))
        return norm(lin(p["3"], y), p["4"].weight, p["4"].bias, 1e-5)

    def forward(self, x, y, t, text, clip, windows, riflex=None, dtype=None, tap=None, rope=None):
        """x [B,16,f,h,w], y [B,20,f,h,w], t [B], text [B,L,.], clip [B,257,.], windows [B,F,5,layers,C]."""
        dtype = dtype or x.dtype
        b, _, f, h, w = x.shape
        tok = torch.cat([x, y], 1).to(dtype)
        tok = tok.unflatten(4, (w // 2, 2)).unflatten(3, (h // 2, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        tok = F.linear(tok, self.patch_embedding.weight.flatten(1).to(dtype), self.patch_embedding.bias.to(dtype))
        e, e0 = self.time(t)
        e0 = e0.to(dtype)
        ct, ci, ca = self.text(text.to(dtype)), self.image(clip.to(dtype)), self.audio_injection(windows.to(dtype))
        if rope is None:
            a = rope_angles(f, h // 2, w // 2, self.head_dim, x.device, riflex)
            rope = a.cos().float()[:, None], a.sin().float()[:, None]
        cos, sin = rope
        if tap is not None:
            tap.update(patch_embedding=tok, time_embedding=e, time_projection=e0, text_tokens=ct, image_tokens=ci, audio_tokens=ca)
        for i, blk in enumerate(self.blocks):
            tok = blk(tok, e0, cos, sin, ct, ci, ca)
            if tap is not None:
                tap[f"block.{i}"] = tok
        m = (self.head.modulation + e[:, None]).to(dtype)
        out = lin(self.head.head, norm(tok) * (1 + m[:, 1:2]) + m[:, 0:1]).float()
        out = out.view(b, f, h // 2, w // 2, 2, 2, self.out_dim)
        return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, self.out_dim, f, h, w)
