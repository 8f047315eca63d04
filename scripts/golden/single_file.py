"""`single_file/`: weights in latent diffusion's naming, and a tiny model in one `.ckpt`.

diffusers converts latent diffusion's names to its own (`convert_ldm_unet_checkpoint`). This script converts in the other
direction, like its script `convert_diffusers_to_original_stable_diffusion.py`, and verifies the result by converting back.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file

from variants import UNETS, VAES

UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

SD1 = dict(cross_attention_dim=768, attention_head_dim=8)
SD2 = dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
VAE = dict(
    block_out_channels=[128, 256, 512, 512],
    down_block_types=["DownEncoderBlock2D"] * 4,
    layers_per_block=2,
    up_block_types=["UpDecoderBlock2D"] * 4,
)

UNET_LAYERS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}
UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
VAE_ATTENTION = {"norm.": "group_norm.", "q.": "to_q.", "k.": "to_k.", "v.": "to_v.", "proj_out.": "to_out.0."}


class Named:
    """Stands in for a tensor: the conversion only reads its shape and drops its last dimensions."""

    def __init__(self, name: str, shape):
        self.name, self.shape, self.ndim = name, tuple(shape), len(shape)

    def __getitem__(self, sides):
        assert all(side == slice(None) or side == 0 for side in sides)
        return Named(self.name, [n for n, side in zip(self.shape, sides) if side != 0])


def unet_to_ldm(name: str, config) -> str:
    layers, levels = config.layers_per_block, len(config.block_out_channels)
    for ldm, diffusers in UNET_LAYERS.items():
        if name.startswith(diffusers):
            return name.replace(diffusers, ldm)
    blocks = {"mid_block.attentions.0.": "middle_block.1."}
    for j in range(2):
        blocks[f"mid_block.resnets.{j}."] = f"middle_block.{2 * j}."
    for i in range(levels):
        for j in range(layers):
            blocks[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{(layers + 1) * i + j + 1}.0."
            blocks[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{(layers + 1) * i + j + 1}.1."
        for j in range(layers + 1):
            blocks[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{(layers + 1) * i + j}.0."
            blocks[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{(layers + 1) * i + j}.1."
        blocks[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{(layers + 1) * (i + 1)}.0.op."
        after = 2 if config.up_block_types[i].startswith("CrossAttn") else 1
        blocks[f"up_blocks.{i}.upsamplers.0."] = f"output_blocks.{(layers + 1) * i + layers}.{after}."
    for diffusers, ldm in blocks.items():
        if name.startswith(diffusers):
            rest = name[len(diffusers) :]
            if "resnets" in name:
                for old, new in UNET_RESNET.items():
                    rest = rest.replace(new, old)
            return ldm + rest
    raise ValueError(name)


def vae_to_ldm(name: str, config) -> str:
    levels = len(config.block_out_channels)
    for i in range(levels):
        name = name.replace(f"encoder.down_blocks.{i}.", f"encoder.down.{i}.")
        name = name.replace(f"decoder.up_blocks.{i}.", f"decoder.up.{levels - 1 - i}.")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    name = name.replace("resnets", "block").replace("conv_shortcut", "nin_shortcut")
    if "mid_block.attentions.0." in name:
        half, layer = name.split("mid_block.attentions.0.")
        for ldm, diffusers in VAE_ATTENTION.items():
            if layer.startswith(diffusers):
                return half + "mid.attn_1." + layer.replace(diffusers, ldm)
    return name.replace("conv_norm_out", "norm_out")


def ldm_shape(ldm: str, tensor) -> list[int]:
    shape = list(tensor.shape)
    return shape + [1, 1] if ".mid.attn_1." in ldm and len(shape) == 2 else shape


def names_of(model, to_ldm, convert, prefix: str) -> list:
    """(name in diffusers, name in latent diffusion, shape there) of every weight, as converted by diffusers."""
    pairs = {name: to_ldm(name, model.config) for name in model.state_dict()}
    rows = [(name, ldm, ldm_shape(ldm, model.state_dict()[name])) for name, ldm in sorted(pairs.items())]
    back = convert({prefix + ldm: Named(ldm, shape) for _, ldm, shape in rows}, model.config)
    assert {name: tensor.name for name, tensor in back.items()} == pairs
    assert all(tensor.shape == tuple(model.state_dict()[name].shape) for name, tensor in back.items())
    return rows


def whole(folder: Path) -> dict[str, torch.Tensor]:
    """A model in folders as one dictionary in latent diffusion's naming."""
    tensors = {}
    for name, tensor in torch.load(folder / "text_encoder/pytorch_model.bin", weights_only=True).items():
        tensors[TEXT_PREFIX + name] = tensor
    parts = (("unet", UNet2DConditionModel, unet_to_ldm, UNET_PREFIX), ("vae", AutoencoderKL, vae_to_ldm, VAE_PREFIX))
    for part, cls, to_ldm, prefix in parts:
        config = cls(**cls.load_config(folder / part)).config
        for name, tensor in load_file(folder / part / "diffusion_pytorch_model.safetensors").items():
            ldm = to_ldm(name, config)
            tensors[prefix + ldm] = tensor.reshape(ldm_shape(ldm, tensor)).contiguous()
    return tensors


def make(output: Path) -> None:
    folder = output / "single_file"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    unets = {"sd1": SD1, "sd2": SD2, "unet_three_levels": UNETS["unet_three_levels"]}
    vaes = {"vae": VAE, "vae_three_levels": VAES["vae_three_levels"]}
    cases = {}
    with torch.device("meta"):
        for name, config in unets.items():
            model = UNet2DConditionModel(**config)
            rows = names_of(model, unet_to_ldm, convert_ldm_unet_checkpoint, UNET_PREFIX)
            cases[name] = dict(config=dict(model.config), names=rows)
        for name, config in vaes.items():
            model = AutoencoderKL(**config)
            rows = names_of(model, vae_to_ldm, convert_ldm_vae_checkpoint, VAE_PREFIX)
            cases[name] = dict(config=dict(model.config), names=rows)
    for name, case in cases.items():
        print(f"  {name}: {len(case['names'])} names")
        (folder / f"{name}.json").write_text(json.dumps(case, separators=(",", ":")) + "\n")

    # As saved by training code, with training state.
    state = whole(output / "alt_diffusion_m18")
    state["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    state["model_ema.decay"] = torch.tensor(0.9999)
    torch.save({"epoch": 3, "global_step": 470000, "state_dict": state}, folder / "m18.ckpt")
