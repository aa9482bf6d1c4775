"""Write the model folder in the released layout, bfloat16:

  python export.py OUT --vae vae.safetensors --dit dit.0.safetensors dit.1... --spiece spiece.model --names checkpoint-tensors.tsv
"""
import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

import models as M
from synth import rule, value
from train import load_many, make_towers

CONFIG = """\
# A small trained model of the EchoMimicV3-Flash-Pro family: drawn portraits, espeak-ng voices.
# Made by tools/train_demo; see docs/DEMO-MODEL.md.
format: civitai
pipeline: Wan
transformer_additional_kwargs:
  transformer_subpath: ./
  dict_mapping:
    in_dim: in_channels
    dim: hidden_size

vae_kwargs:
  vae_subpath: Wan2.1_VAE.safetensors
  temporal_compression_ratio: 4
  spatial_compression_ratio: 8

text_encoder_kwargs:
  text_encoder_subpath: models_t5_umt5-xxl-enc-bf16.safetensors
  tokenizer_subpath: google/umt5-xxl
  text_length: 512
  vocab: 512
  dim: 64
  dim_attn: 64
  dim_ffn: 128
  num_heads: 4
  num_layers: 2
  num_buckets: 32
  shared_pos: False
  dropout: 0.0

scheduler_kwargs:
  scheduler_subpath: null
  num_train_timesteps: 1000
  shift: 5.0
  use_dynamic_shifting: false
  base_shift: 0.5
  max_shift: 1.15
  base_image_seq_len: 256
  max_image_seq_len: 4096

image_encoder_kwargs:
  image_encoder_subpath: models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors
  num_heads: 2

recommended:
  sampler_name: Flow_Unipc
  num_inference_steps: 8
  guidance_scale: 1.0
  audio_guidance_scale: 1.5
  shift: 5.0
  no_teacache: true
  video_length: 73
  sample_size: [256, 256]
"""


def bf16(sd):
    return {k: v.detach().contiguous().bfloat16() for k, v in sd.items()}


def textual():
    """The text half of the image model's file: in the released layout, never read."""
    d, v, n = 32, 64, 16
    s = {"token_embedding.weight": (v, d), "type_embedding.weight": (1, d), "pos_embedding.weight": (n, d), "norm.weight": (d,), "norm.bias": (d,),
         "head.0.weight": (d, d), "head.2.weight": (d, d)}
    for a in "qkvo":
        s[f"blocks.0.attn.{a}.weight"], s[f"blocks.0.attn.{a}.bias"] = (d, d), (d,)
    for a in ("norm1", "norm2"):
        s[f"blocks.0.{a}.weight"], s[f"blocks.0.{a}.bias"] = (d,), (d,)
    s |= {"blocks.0.ffn.0.weight": (4 * d, d), "blocks.0.ffn.0.bias": (4 * d,), "blocks.0.ffn.2.weight": (d, 4 * d), "blocks.0.ffn.2.bias": (d,)}
    return {"textual." + k: value(4, "clip/textual." + k, sh, *rule("clip", "textual." + k, sh)) for k, sh in s.items()}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--vae", required=True)
    ap.add_argument("--dit", nargs="+", required=True)
    ap.add_argument("--spiece", required=True)
    ap.add_argument("--names", help="the released names, to compare with")
    o = ap.parse_args()
    os.makedirs(f"{o.out}/google/umt5-xxl", exist_ok=True)
    os.makedirs(f"{o.out}/wav2vec2", exist_ok=True)
    t5, clip = make_towers()
    sd = load_many(o.dit)
    dit, w2v = M.DiT(), M.Wav2Vec2()
    tsd = {k: v for k, v in sd.items() if not k.startswith("w2v.")}
    for k in tsd:
        if ".q_audio." in k:
            tsd[k] = torch.zeros_like(tsd[k])                             # never used by the model
    dit.load_state_dict(tsd)
    w2v.load_state_dict({k[4:]: v for k, v in sd.items() if k.startswith("w2v.")})
    vae = M.VAE(16)
    vae.load_state_dict(load_many([o.vae]))
    csd = {"visual." + k: v for k, v in clip.state_dict().items()} | textual() | {"log_scale": torch.zeros(())}
    wsd = w2v.state_dict() | {"masked_spec_embed": torch.zeros(64)}
    files = {"transformer": ("diffusion_pytorch_model.safetensors", dit.state_dict()), "vae": ("Wan2.1_VAE.safetensors", vae.state_dict()),
             "t5": ("models_t5_umt5-xxl-enc-bf16.safetensors", t5.state_dict()),
             "clip": ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors", csd), "wav2vec2": ("wav2vec2/model.safetensors", wsd)}
    total = 0
    for m, (f, s) in files.items():
        save_file(bf16(s), f"{o.out}/{f}", metadata={"format": "pt"})
        os.chmod(f"{o.out}/{f}", 0o644)
        print(f"{f}: {len(s)} tensors, {sum(v.numel() for v in s.values()) / 1e6:.3f} M parameters")
    if o.names:
        rel = {m: set() for m in files}
        for line in open(o.names).read().splitlines()[1:]:
            m, n, _ = line.split("\t")
            rel[m].add(n)
        for m, (_, s) in files.items():
            extra = set(s) - rel[m]
            lack = {n for n in rel[m] - set(s) if not any(f"{w}.{i}." in n for w in ("blocks", "layers", "transformer") for i in range(1, 40))}
            print(f"{m}: not a released name: {sorted(extra)}; released, not here (deeper layers aside): {sorted(lack)}")
    shutil.copyfile(o.spiece, f"{o.out}/google/umt5-xxl/spiece.model")
    open(f"{o.out}/config.yaml", "w").write(CONFIG)
    put = lambda f, d: open(f"{o.out}/{f}", "w").write(json.dumps(d, indent=2) + "\n")
    put("config.json", {"_class_name": "WanTransformer3DModel", "model_type": "i2v", "dim": 256, "hidden_size": 256, "eps": 1e-6, "ffn_dim": 1024,
                        "freq_dim": 64, "in_dim": 36, "in_channels": 36, "num_heads": 2, "num_layers": 5, "out_dim": 16, "patch_size": [1, 2, 2],
                        "text_len": 512, "text_dim": 64, "qk_norm": True, "cross_attn_norm": True})
    put("wav2vec2/config.json", {"model_type": "wav2vec2", "architectures": ["Wav2Vec2Model"], "hidden_size": 64, "num_hidden_layers": 4,
                                 "num_attention_heads": 4, "intermediate_size": 128, "hidden_act": "gelu", "conv_dim": [64] * 7,
                                 "conv_stride": list(M.Wav2Vec2.STRIDES), "conv_kernel": list(M.Wav2Vec2.KERNELS), "num_feat_extract_layers": 7,
                                 "conv_bias": False, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
                                 "feat_extract_norm": "group", "feat_extract_activation": "gelu", "do_stable_layer_norm": False,
                                 "vocab_size": 32, "layer_norm_eps": 1e-5, "hidden_dropout": 0.0, "attention_dropout": 0.0,
                                 "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "layerdrop": 0.0, "mask_time_prob": 0.0,
                                 "mask_feature_prob": 0.0, "apply_spec_augment": False})
    put("wav2vec2/preprocessor_config.json", {"do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
                                              "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False, "sampling_rate": 16000})
    for r, _, fs in os.walk(o.out):
        total += sum(os.path.getsize(os.path.join(r, f)) for f in fs)
    print(f"in all {total} bytes = {total / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
