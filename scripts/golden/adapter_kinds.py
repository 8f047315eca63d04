"""`adapter_kinds/`: one small file for each kind of adapter, and the tiny UNet's or text encoder's outputs with it.

LyCORIS and PEFT write the files and compute the outputs, without merging the adapters. Also needs::

    pip install --no-deps peft==0.21.2 accelerate==1.1.1 lycoris-lora==4.1.3 einops toml psutil
"""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import (
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
)
from safetensors.torch import load_file

from common import normal, save_json, save_tensors

REPOSITORY = "alt_diffusion"
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LINEAR, CROSS, FEED = f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_out.0", f"{BLOCK}.ff.net.0.proj"
POINTWISE, CONV = "down_blocks.0.attentions.0.proj_in", "up_blocks.1.resnets.0.conv1"
TIME = "mid_block.resnets.0.time_emb_proj"
GROUP_NORM, LAYER_NORM = "up_blocks.1.resnets.0.norm2", f"{BLOCK}.norm3"
WEIGHTS = (LINEAR, FEED, POINTWISE, CONV)

RANK, ALPHA = 3, 2.0
#: Kind, LyCORIS module, layers, options and strength.
LYCORIS = (
    ("lora", LoConModule, WEIGHTS, {}, 0.7),
    ("lora_tucker", LoConModule, WEIGHTS, dict(use_tucker=True), 1.0),
    ("dora_output", LoConModule, WEIGHTS, dict(weight_decompose=True, wd_on_out=True), 1.0),
    ("dora_input", LoConModule, WEIGHTS, dict(weight_decompose=True, wd_on_out=False), 1.0),
    ("loha", LohaModule, WEIGHTS, {}, 0.7),
    ("loha_tucker", LohaModule, WEIGHTS, dict(use_tucker=True), 1.0),
    ("loha_dora", LohaModule, WEIGHTS, dict(weight_decompose=True), 1.0),
    ("lokr", LokrModule, WEIGHTS, dict(factor=2, lora_dim=2), 0.7),
    ("lokr_tucker", LokrModule, (CONV,), dict(factor=2, lora_dim=2, use_tucker=True), 1.0),
    ("lokr_both", LokrModule, WEIGHTS, dict(factor=8, lora_dim=1, decompose_both=True), 1.0),
    ("lokr_full", LokrModule, WEIGHTS, dict(full_matrix=True), 1.0),
    ("lokr_dora", LokrModule, WEIGHTS, dict(factor=2, lora_dim=2, weight_decompose=True), 1.0),
    ("ia3", IA3Module, (LINEAR, CONV), {}, 0.7),
    ("ia3_input", IA3Module, (LINEAR, CONV), dict(train_on_input=True), 1.0),
    ("full", FullModule, (LINEAR, CROSS, POINTWISE), {}, 0.7),
    ("norm", NormModule, (GROUP_NORM, LAYER_NORM), {}, 0.7),
    ("glora", GLoRAModule, (LINEAR, FEED, CONV), {}, 0.7),
    ("oft", DiagOFTModule, WEIGHTS, {}, 0.7),
    # Rotations as large as they may be, and factors.
    ("oft_limited", DiagOFTModule, WEIGHTS, dict(constraint=0.05, rescaled=True), 1.0),
)

UNET_PATTERNS = dict(
    r=3, lora_alpha=6, rank_pattern={"ff.net.0.proj": 2}, alpha_pattern={"attn1.to_q": 1, r"up_.*\.conv\d": 12}
)
#: Kind, model, PEFT configuration and strength.
PEFT = (
    ("peft_lora", "unet", LoraConfig(target_modules=list(WEIGHTS), **UNET_PATTERNS), 0.7),
    ("peft_rslora", "unet", LoraConfig(target_modules=[LINEAR], r=3, lora_alpha=6, use_rslora=True), 1.0),
    ("peft_bias", "unet", LoraConfig(target_modules=[CROSS, CONV], r=2, lora_alpha=3, lora_bias=True), 0.7),
    ("peft_biases", "unet", LoraConfig(target_modules=[CROSS, CONV], r=2, lora_alpha=3, bias="lora_only"), 1.0),
    ("peft_dora", "unet", LoraConfig(target_modules=list(WEIGHTS), r=3, lora_alpha=6, use_dora=True), 0.7),
    ("peft_saved", "unet", LoraConfig(target_modules=[LINEAR], r=2, modules_to_save=["conv_norm_out", TIME]), 1.0),
    ("peft_loha", "unet", LoHaConfig(target_modules=list(WEIGHTS), r=3, alpha=6, use_effective_conv2d=True), 0.7),
    (
        "peft_lokr",
        "unet",
        LoKrConfig(target_modules=list(WEIGHTS), r=2, alpha=3, decompose_factor=2, use_effective_conv2d=True),
        0.7,
    ),
    (
        "peft_ia3",
        "unet",
        IA3Config(target_modules=[CROSS, FEED, CONV, POINTWISE], feedforward_modules=[FEED, CONV]),
        1.0,
    ),
    (
        "peft_text",
        "text_encoder",
        LoraConfig(target_modules=["query", "word_embeddings", "output.dense"], r=3, lora_alpha=6),
        0.7,
    ),
)


def fill(name: str, state: dict[str, torch.Tensor], scale: float = 0.4) -> None:
    """Set an adapter's trained values at random; magnitudes near their initial ones."""
    for key, tensor in state.items():
        if not tensor.is_floating_point() or key.endswith("alpha"):
            continue
        noise = normal(f"{name}/{key}", *tensor.shape)
        if "dora_scale" in key or "magnitude" in key or "ia3_l" in key or "rescale" in key:
            tensor.copy_(tensor * (1 + 0.3 * noise))
        elif tensor.dim() <= 1 or "norm" in key:
            tensor.copy_(tensor + 0.2 * noise)
        else:
            tensor.copy_(scale * noise)


def models(output: Path) -> dict[str, torch.nn.Module]:
    folder = output / REPOSITORY
    return dict(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet").eval(),
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder").eval(),
    )


def run(output: Path, part: str, model: torch.nn.Module) -> torch.Tensor:
    if part == "unet":
        golden = load_file(output / "unet.safetensors")
        names = ("sample", "timesteps", "encoder_hidden_states")
        return model(*(golden[f"{REPOSITORY}.square.{name}"] for name in names)).sample
    golden = load_file(output / "text_encoder.safetensors")
    return model(golden["input_ids"], attention_mask=golden["attention_mask"]).projection_state


def make_lycoris(output: Path, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    for kind, module, layers, options, strength in LYCORIS:
        unet = models(output)["unet"]
        state, wrapped = {}, []
        for layer in layers:
            name = f"lora_unet_{layer.replace('.', '_')}"
            options = dict(lora_dim=RANK, alpha=ALPHA) | options
            change = module(name, unet.get_submodule(layer), multiplier=strength, **options)
            # `full` holds what it adds until it is applied.
            parameters = dict(change.named_parameters())
            fill(f"{kind}/{layer}", parameters, 0.2 if module is FullModule else 0.4)
            wrapped.append(change)
            own = parameters if module is FullModule else change.state_dict()
            names = {"weight": "diff", "bias": "diff_b"} if module is FullModule else {}
            state |= {f"{name}.{names.get(key, key)}": value.clone() for key, value in own.items()}
        for change in wrapped:
            change.apply_to()
        save_tensors(folder / f"{kind}.safetensors", state)
        tensors[kind] = run(output, "unet", unet)


def make_peft(output: Path, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    for kind, part, config, strength in PEFT:
        model = get_peft_model(models(output)[part], config)
        fill(kind, {name: value for name, value in model.named_parameters() if value.requires_grad})
        model.save_pretrained(folder / kind)
        (folder / kind / "README.md").unlink()
                    # PEFT writes a set, whose order changes between runs.
        path = folder / kind / "adapter_config.json"
        saved = json.loads(path.read_text())
        save_json(path, saved | {"target_modules": sorted(saved["target_modules"])})
        if strength != 1:
            for module in model.modules():
                if hasattr(module, "scaling"):
                    module.scaling = {name: value * strength for name, value in module.scaling.items()}
        tensors[kind] = run(output, part, model.base_model.model)


def make_diffusers(output: Path, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a file like `save_lora_weights` of diffusers 0.34 and later."""
    parts = dict(
        unet=LoraConfig(target_modules=list(WEIGHTS), **UNET_PATTERNS),
        text_encoder=LoraConfig(target_modules=["query", "output.dense"], r=2, lora_alpha=3, use_rslora=True),
    )
    state, metadata = {}, {}
    for part, config in parts.items():
        model = models(output)[part]
        inject_adapter_in_model(config, model)
        fill(f"diffusers/{part}", {name: value for name, value in model.named_parameters() if "lora_" in name})
        state |= {f"{part}.{name}": value for name, value in get_peft_model_state_dict(model).items()}
        fields = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
        metadata |= {f"{part}.{name}": value for name, value in fields.items()}
        tensors[f"diffusers.{part}"] = run(output, part, model)
    packed = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
    save_tensors(folder / "diffusers.safetensors", state, packed)


def fields() -> dict[str, list[str]]:
    """All fields of the PEFT configurations that this project may read."""
    configs = (LoraConfig, LoHaConfig, LoKrConfig, IA3Config, OFTConfig, BOFTConfig)
    return {
        config().peft_type.value: sorted({field.name for field in dataclasses.fields(config)} | set(config().to_dict()))
        for config in configs
    }


def make(output: Path) -> None:
    folder = output / "adapter_kinds"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    make_lycoris(output, folder, tensors)
    make_peft(output, folder, tensors)
    make_diffusers(output, folder, tensors)
    save_tensors(folder / "golden.safetensors", tensors)
    save_json(folder / "peft_fields.json", fields())
    strengths = {kind: strength for kind, *_, strength in LYCORIS + PEFT if strength != 1}
    save_json(folder / "strengths.json", strengths)
