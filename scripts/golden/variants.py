"""`variants/`: UNets and autoencoders that differ from published ones in every setting that a configuration allows."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from common import normal, randomise, save_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
TOKENS = 5
CONTEXT = 6

UNETS = {
    # An odd number of channels, so that the sinusoids end in a zero; a halving that loses a row, so that the way up has
    # to stretch 3 rows to 7.
    "unet_uneven": dict(
        in_channels=9,
        out_channels=2,
        center_input_sample=True,
        flip_sin_to_cos=False,
        freq_shift=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(9, 12),
        layers_per_block=(1, 2),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(3, 2),
        downsample_padding=0,
        mid_block_scale_factor=1.5,
        norm_num_groups=3,
        norm_eps=1e-3,
        cross_attention_dim=CONTEXT,
        time_embedding_dim=10,
        conv_in_kernel=5,
        conv_out_kernel=1,
    ),
    "unet_three_levels": dict(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 12, 16),
        layers_per_block=1,
        transformer_layers_per_block=2,
        attention_head_dim=2,
        norm_num_groups=2,
        cross_attention_dim=CONTEXT,
        use_linear_projection=True,
        upcast_attention=True,
    ),
}

VAES = {
    "vae_three_levels": dict(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 6, 8),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ),
    "vae_old_names": dict(
        in_channels=1,
        out_channels=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
    ),
}

#: The names of attention before diffusers 0.17.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def with_old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Attention with old names in both halves, and as 1×1 convolutions in the decoder."""
    renamed = {}
    for name, tensor in state.items():
        for new, old in OLD_NAMES.items():
            if f"attentions.0.{new}." in name:
                name = name.replace(f".{new}.", f".{old}.")
                if name.startswith("decoder") and name.endswith("weight"):
                    tensor = tensor[:, :, None, None]
        renamed[name] = tensor
    return renamed


def make(output: Path) -> None:
    folder = output / "variants"
    if folder.exists():
        shutil.rmtree(folder)

    for name, config in UNETS.items():
        model = randomise(UNet2DConditionModel(**config), name)
        save_tensors(folder / name / WEIGHTS, model.state_dict())
        model.save_config(folder / name)
        tensors = {}
        for case, height, width in (("even", 8, 4), ("odd", 7, 5)):
            sample = normal(f"{name}.{case}.sample", 2, model.config.in_channels, height, width)
            timesteps = torch.tensor([7, 950])
            states = normal(f"{name}.{case}.states", 2, TOKENS, CONTEXT)
            # The first prompt's third token counts twice, the second prompt's last one not at all.
            twice = torch.cat([states, states[:, 2:3]], dim=1)
            mask = torch.ones(2, TOKENS + 1)
            mask[1, TOKENS - 1 :] = 0
            tensors |= {
                f"{case}.sample": sample,
                f"{case}.timesteps": timesteps,
                f"{case}.encoder_hidden_states": states,
                f"{case}.output": model(sample, timesteps, encoder_hidden_states=states).sample,
                f"{case}.output_with_bias": model(
                    sample, timesteps, encoder_hidden_states=twice, encoder_attention_mask=mask
                ).sample,
            }
            print(f"  {name}.{case}: standard deviation {tensors[f'{case}.output'].std():.2f}")
        save_tensors(folder / name / "golden.safetensors", tensors)

    for name, config in VAES.items():
        model = randomise(AutoencoderKL(**config), name)
        state = with_old_names(model.state_dict()) if name == "vae_old_names" else model.state_dict()
        save_tensors(folder / name / WEIGHTS, state)
        model.save_config(folder / name)
        picture = normal(f"{name}.picture", 2, model.config.in_channels, 13, 8)
        latents = normal(f"{name}.latents", 2, model.config.latent_channels, 3, 2)
        moments = model.encode(picture).latent_dist
        save_tensors(
            folder / name / "golden.safetensors",
            {
                "picture": picture,
                "mean": moments.mean,
                "logvar": moments.logvar,
                "latents": latents,
                "decoded": model.decode(latents).sample,
                "kl": moments.kl(),
            },
        )
        print(f"  {name}: latents {moments.mean.std():.2f}, log-variance {moments.logvar.std():.2f}")
