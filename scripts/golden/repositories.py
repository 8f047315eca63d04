"""`alt_diffusion/` and `alt_diffusion_m18/`: two complete tiny models in the published layout, with random weights."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from diffusers import AltDiffusionPipeline, AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from transformers import XLMRobertaTokenizer

from common import normal, randomise

CROSS_ATTENTION = 20


def text_encoder(name: str, vocabulary: int, *, pre_transformation: bool) -> RobertaSeriesModelWithTransformation:
    extra = {"has_pre_transformation": True} if pre_transformation else {}
    config = RobertaSeriesConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        project_dim=CROSS_ATTENTION,
        hidden_act="gelu",
        **extra,
    )
    # Exact in f16, so that f16 copies of these weights have the same golden values.
    return randomise(RobertaSeriesModelWithTransformation(config), name, f16_exact=True)


def unet_sd1() -> UNet2DConditionModel:
    """SD 1.x: convolutions around the transformers, and one number of heads (in a field named after head size)."""
    config = dict(
        sample_size=16,
        block_out_channels=(8, 12, 16, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=CROSS_ATTENTION,
    )
    return randomise(UNet2DConditionModel(**config), "unet_sd1")


def unet_sd2() -> UNet2DConditionModel:
    """SD 2.x: linear layers around the transformers, and a number of heads for each level."""
    config = dict(
        sample_size=16,
        block_out_channels=(8, 12, 12, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        norm_num_groups=4,
        attention_head_dim=(2, 4, 4, 8),
        cross_attention_dim=CROSS_ATTENTION,
        use_linear_projection=True,
    )
    return randomise(UNet2DConditionModel(**config), "unet_sd2")


def vae(name: str, channels: tuple[int, ...], scaling_factor: float) -> AutoencoderKL:
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=scaling_factor,
    )
    randomise(model, name)
    # Half the range of images, so that few pixels are clipped to black or white.
    model.decoder.conv_out.weight.mul_(0.4)
    return model


def save(folder: Path, tokenizer: Path, *, safe_text_encoder: bool, **parts) -> None:
    """`AltDiffusionPipeline.save_pretrained`, with the tokenizer's own files."""
    if folder.exists():
        shutil.rmtree(folder)
    pipeline = AltDiffusionPipeline(
        tokenizer=XLMRobertaTokenizer.from_pretrained(tokenizer),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # diffusers 0.31 names itself as the text encoder's library; published repositories name a module.
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    content["text_encoder"] = ["alt_diffusion", "RobertaSeriesModelWithTransformation"]
    index.write_text(json.dumps(content, indent=2) + "\n")
    if not safe_text_encoder:
        (folder / "text_encoder" / "model.safetensors").unlink()
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def published_state(model: torch.nn.Module) -> OrderedDict:
    """The weights as published by BAAI: with position ids, a pooler and a temperature that the encoder never reads."""
    state = OrderedDict(model.state_dict())
    positions = model.config.max_position_embeddings
    state["roberta.embeddings.position_ids"] = torch.arange(positions).expand((1, -1))
    state["logit_scale"] = torch.tensor(2.6592)
    state["pooler.dense.weight"] = normal("pooler.weight", 4, 4)
    state["pooler.dense.bias"] = normal("pooler.bias", 4)
    return state


def f16_views(model: torch.nn.Module) -> OrderedDict:
    """The weights in f16, with the query, key and value weights of a layer as views into one storage.

    The key weight is stored transposed: readers must use both the offsets and the strides in the pickle.
    """
    state = OrderedDict((key, value.half()) for key, value in model.state_dict().items())
    for layer in range(model.config.num_hidden_layers):
        names = [f"roberta.encoder.layer.{layer}.attention.self.{part}.weight" for part in ("query", "key", "value")]
        query, key, value = (state[name] for name in names)
        size = query.shape[0]
        fused = torch.cat([query, key.t(), value]).contiguous()
        state[names[0]] = fused[:size]
        state[names[1]] = fused[size : 2 * size].t()
        state[names[2]] = fused[2 * size :]
    return state


def make(output: Path) -> None:
    tokenizer = output / "tokenizer"
    vocabulary = len(XLMRobertaTokenizer.from_pretrained(tokenizer))
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

    save(
        output / "alt_diffusion",
        tokenizer,
        safe_text_encoder=True,
        text_encoder=text_encoder("text_encoder", vocabulary, pre_transformation=False),
        unet=unet_sd1(),
        vae=vae("vae", (8, 8, 16, 16), 0.18215),
        scheduler=PNDMScheduler(**betas, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
    )

    encoder = text_encoder("text_encoder_m18", vocabulary, pre_transformation=True)
    folder = output / "alt_diffusion_m18"
    save(
        folder,
        tokenizer,
        safe_text_encoder=False,
        text_encoder=encoder,
        unet=unet_sd2(),
        vae=vae("vae_m18", (4, 8, 8, 12), 0.2),
        scheduler=DDIMScheduler(
            **betas, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
    )
    torch.save(published_state(encoder), folder / "text_encoder" / "pytorch_model.bin")

    # The same encoder in other forms of published weights, one folder each.
    forms = output / "text_encoder_forms"
    if forms.exists():
        shutil.rmtree(forms)
    encoder.save_pretrained(forms / "sharded", max_shard_size="150KB", safe_serialization=True)
    for path in (forms / "sharded").glob("*.safetensors"):
        path.chmod(0o644)
    for name in ("f16", "legacy"):
        (forms / name).mkdir()
        shutil.copyfile(folder / "text_encoder" / "config.json", forms / name / "config.json")
    torch.save(f16_views(encoder), forms / "f16" / "pytorch_model.bin")
    half = OrderedDict((key, value.half()) for key, value in encoder.state_dict().items())
    torch.save(half, forms / "legacy" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
