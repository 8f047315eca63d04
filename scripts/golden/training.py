"""`training/`: twenty steps of every training stage on the tiny models, by PyTorch.

Each file has the inputs of a stage, the `losses` and `gradient_norms` of all steps, and for comparing the first gradient
`first.NAME` for each weight: the gradient's norm and its inner product with the weight. The weights are those of
`dual_encoders/altclip`, `alt_diffusion` and `alt_diffusion_m18`.

`f32_errors.json` has how far f32 itself is from f64, for each stage: the largest error of the first gradients' norms and
inner products, over random orders of summation. Errors are divided by the norm of all gradients if that is below 1;
those of inner products also by the norm of the weight if that is above 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import RobertaSeriesModelWithTransformation
from peft import LoraConfig
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import AltCLIPModel

from common import normal, save_json, save_tensors

STEPS = 20
WARMUP = 3
LEARNING_RATE = 2e-3
#: At ten times this, PyTorch's own f32 and f64 diverge by 1e-2 on `guidance`: Adam's first steps have the size of the
#: learning rate, however small and uncertain in sign a gradient is.
DIFFUSION_LEARNING_RATE = 2e-4
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
MAX_GRAD_NORM = 1.0
#: How many orders of summation are tried for the error of f32.
ORDERS = 64


def learning_rate(peak: float, step: int) -> float:
    progress = min(max(step - WARMUP, 0) / (STEPS - WARMUP), 1)
    return peak * min((step + 1) / WARMUP, 1) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass
class Stage:
    """What is trained, the loss of each step, and the inputs that a golden file needs."""

    named: list[tuple[str, torch.nn.Parameter]]
    loss_of: Callable[[int], torch.Tensor]
    inputs: dict[str, torch.Tensor]
    peak: float = LEARNING_RATE


def statistics(stage: Stage) -> dict[str, torch.Tensor]:
    """For each weight, the norm of its gradient and their inner product, in f64."""
    first = {}
    for name, parameter in stage.named:
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        gradient = gradient.double()
        first[name] = torch.stack([gradient.norm(), (gradient * parameter.double()).sum()])
    return first


def train(stage: Stage) -> dict[str, torch.Tensor]:
    """Train for STEPS steps."""
    groups = [
        {"params": [p for _, p in stage.named if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in stage.named if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=BETAS, eps=1e-8)
    losses, norms, first = [], [], {}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage.peak, step)
        optimizer.zero_grad(set_to_none=True)
        loss = stage.loss_of(step)
        loss.backward()
        if step == 0:
            first = {f"first.{name}": values.float() for name, values in statistics(stage).items()}
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in stage.named], MAX_GRAD_NORM).item())
        optimizer.step()
    print(f"    loss {losses[0]:.5f} to {losses[-1]:.5f}")
    return {"losses": torch.tensor(losses), "gradient_norms": torch.tensor(norms), **first}


class Reordered(TorchFunctionMode):
    """Sums the products of linear layers and convolutions in a random order."""

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (F.linear, F.conv2d):
            x, weight, *rest = args
            order = torch.randperm(weight.shape[1], generator=self.generator)
            x = x.index_select(-1 if function is F.linear else 1, order)
            args = (x, weight.index_select(1, order), *rest)
        return function(*args, **(kwargs or {}))


def f32_error(stage_in: Callable[[torch.dtype], Stage]) -> float:
    """The largest distance of the first gradients in f32 from those in f64."""

    def first(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        stage = stage_in(dtype)
        stage.loss_of(0).backward()
        return statistics(stage)

    exact, weights = first(torch.float64), dict(stage_in(torch.float64).named)
    scale = min(math.hypot(*(norm.item() for norm, _ in exact.values())), 1)
    largest = 0.0
    for seed in range(ORDERS):
        with Reordered(seed):
            found = first(torch.float32)
        for name, expected in exact.items():
            norm, product = (found[name] - expected).abs().tolist()
            largest = max(largest, norm / scale, product / scale / max(weights[name].norm().item(), 1))
    return largest


def texts(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of texts of different lengths, and their mask."""
    ids, mask = torch.ones(count, 12, dtype=torch.int64), torch.zeros(count, 12, dtype=torch.int64)
    for row in range(count):
        length = 4 + row % 7
        values = (normal(f"{name}.{row}", length).abs() * 1000).long() % 93 + 4
        ids[row, :length], mask[row, :length] = values, 1
        ids[row, 0], ids[row, length - 1] = 0, 2
    return ids, mask


def text_model(output: Path, dtype: torch.dtype):
    model = AltCLIPModel.from_pretrained(output / "dual_encoders" / "altclip", attn_implementation="eager").eval()
    model = model.to(dtype)
    is_text = ("text_model.", "text_projection.", "logit_scale")
    named = [(n, p) for n, p in model.named_parameters() if n.startswith(is_text) and "pooler" not in n]
    return model, named


def teacher(output: Path, dtype: torch.dtype) -> Stage:
    model, named = text_model(output, dtype)
    named = [(n, p) for n, p in named if n != "logit_scale"]
    ids, mask = texts("training.teacher", 8)
    vectors = normal("training.teacher.vectors", 8, model.config.projection_dim)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.arange(5) + step
        found = model.get_text_features(input_ids=ids[rows % 8], attention_mask=mask[rows % 8])
        return F.mse_loss(found, vectors[rows % 8].to(dtype))

    return Stage(named, loss_of, {"input_ids": ids, "attention_mask": mask, "vectors": vectors})


def contrastive(output: Path, dtype: torch.dtype) -> Stage:
    model, named = text_model(output, dtype)
    ids, mask = texts("training.contrastive", 12)
    pictures = F.normalize(normal("training.contrastive.pictures", 12, model.config.projection_dim), dim=1)

    def loss_of(step: int) -> torch.Tensor:
        rows = (torch.arange(7) + step) % 12
        found = model.get_text_features(input_ids=ids[rows], attention_mask=mask[rows])
        logits = model.logit_scale.exp().clamp(max=100) * pictures[rows].to(dtype) @ F.normalize(found, dim=1).T
        targets = torch.arange(7)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    return Stage(named, loss_of, {"input_ids": ids, "attention_mask": mask, "pictures": pictures})


def compute_snr(alphas: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    return alphas[timesteps] / (1 - alphas[timesteps])


def noise_loss(name: str, unet, prediction: str, gamma, dropped: bool, condition=None):
    """The loss of a step, and the inputs of all steps. `condition` computes the hidden states of the chosen rows."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
    )
    latents = normal(f"training.{name}.latents", 4, 4, 8, 8)
    noise = normal(f"training.{name}.noise", STEPS, 2, 4, 8, 8)
    states = normal(f"training.{name}.states", 4, 6, unet.config.cross_attention_dim)
    empty = normal(f"training.{name}.empty", 6, unet.config.cross_attention_dim)
    timesteps = (normal(f"training.{name}.timesteps", STEPS, 2).abs() * 400).long().clamp(max=999)

    def loss_of(step: int) -> torch.Tensor:
        rows = (torch.arange(2) + step) % 4
        times = timesteps[step]
        clean, added = latents[rows].to(unet.dtype), noise[step].to(unet.dtype)
        noisy = scheduler.add_noise(clean, added, times)
        hidden = states[rows].to(unet.dtype, copy=True) if condition is None else condition(rows)
        # With dropout, the second caption of every other batch is the empty one.
        if dropped and step % 2 == 1:
            hidden[1] = empty
        found = unet(noisy, times, encoder_hidden_states=hidden).sample
        velocity = prediction == "v_prediction"
        target = scheduler.get_velocity(clean, added, times) if velocity else added
        error = F.mse_loss(found, target, reduction="none").mean(dim=(1, 2, 3))
        if gamma is not None:
            # Weighted as in diffusers' train_text_to_image.py.
            snr = compute_snr(scheduler.alphas_cumprod, times)
            weights = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
            error = error * (weights / (snr + 1) if velocity else weights / snr)
        return error.mean()

    inputs = {"latents": latents, "noise": noise, "states": states, "empty": empty, "timesteps": timesteps}
    return loss_of, inputs


def unet_of(output: Path, repository: str, dtype: torch.dtype) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(output / repository, subfolder="unet", low_cpu_mem_usage=False)
    return unet.eval().to(dtype)


def diffusion(
    output: Path, dtype: torch.dtype, name: str, repository: str, is_trained, gamma, prediction: str, dropped: bool
) -> Stage:
    unet = unet_of(output, repository, dtype)
    for key, parameter in unet.named_parameters():
        parameter.requires_grad_(is_trained(key))
    named = [(n, p) for n, p in unet.named_parameters() if is_trained(n)]
    loss_of, inputs = noise_loss(name, unet, prediction, gamma, dropped)
    return Stage(named, loss_of, inputs, DIFFUSION_LEARNING_RATE)


def matrices_of(unet) -> list[tuple[str, torch.nn.Parameter]]:
    """PEFT's matrices under this project's names."""
    named = []
    for name, parameter in unet.named_parameters():
        if ".lora_" in name:
            name = name.replace(".lora_A.default.", ".lora_down.").replace(".lora_B.default.", ".lora_up.")
            named.append((name, parameter))
    return named


def low_rank(output: Path, dtype: torch.dtype) -> Stage:
    """Train a LoRA of the attentions and a feed-forward with PEFT."""
    unet = unet_of(output, "alt_diffusion", dtype)
    unet.requires_grad_(False)
    layers = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=layers))
    named = matrices_of(unet)
    begin = {}
    for name, parameter in named:
        # Neither matrix is zero, so that both have gradients from the first step on. The second is small, as in
        # training: if it were as large as the weights, PyTorch's f32 and f64 would diverge by 1e-2 within five steps.
        scale = 0.05 if ".lora_up." in name else parameter.shape[1] ** -0.5
        begin[f"begin.{name}"] = normal(f"training.lora.{name}", *parameter.shape) * scale
        parameter.data = begin[f"begin.{name}"].to(dtype, copy=True)
    loss_of, inputs = noise_loss("lora", unet, "epsilon", None, False)
    return Stage(named, loss_of, inputs | begin, DIFFUSION_LEARNING_RATE)


def textual_inversion(output: Path, dtype: torch.dtype) -> Stage:
    """Train two embeddings of a word, through the text encoder and the UNet."""
    encoder = RobertaSeriesModelWithTransformation.from_pretrained(
        output / "alt_diffusion", subfolder="text_encoder"
    ).eval().to(dtype)
    unet = unet_of(output, "alt_diffusion", dtype)
    unet.requires_grad_(False)
    encoder.requires_grad_(False)
    words = encoder.roberta.embeddings.word_embeddings
    begin = normal("training.word.vectors", 2, words.embedding_dim) * 0.1
    vectors = torch.nn.Parameter(begin.to(dtype, copy=True))
    # Ids past the table's end are the word's.
    first = words.num_embeddings
    ids = torch.tensor([[0, 17, first, first + 1, 2, 1, 1], [0, first, first + 1, 40, 9, 23, 2]])
    mask = (ids != 1).long()

    def states() -> torch.Tensor:
        table = torch.cat([words.weight, vectors])
        return encoder(inputs_embeds=table[ids], attention_mask=mask, position_ids=positions(ids)).projection_state

    loss_of, inputs = noise_loss("word", unet, "epsilon", None, False, lambda rows: states())
    more = {"input_ids": ids, "attention_mask": mask, "begin.vectors": begin}
    return Stage([("vectors", vectors)], loss_of, inputs | more)


def positions(ids: torch.Tensor) -> torch.Tensor:
    """XLM-R's position ids, which count the tokens other than padding from 2 on."""
    mask = (ids != 1).long()
    return torch.cumsum(mask, dim=1) * mask + 1


def make(output: Path) -> None:
    keys_and_values = lambda key: ".attn2.to_k." in key or ".attn2.to_v." in key  # noqa: E731
    everything = lambda key: True  # noqa: E731
    unets = {
        "keys_and_values": ("alt_diffusion", keys_and_values, 5.0, "epsilon", False),
        "whole": ("alt_diffusion_m18", everything, 5.0, "v_prediction", False),
        "guidance": ("alt_diffusion", everything, None, "epsilon", True),
    }
    stages = {"teacher": teacher, "contrastive": contrastive}
    for name, rest in unets.items():
        stages[name] = lambda output, dtype, name=name, rest=rest: diffusion(output, dtype, name, *rest)
    stages |= {"lora": low_rank, "word": textual_inversion}
    errors = {}
    with torch.enable_grad():
        for name, stage in stages.items():
            stage_in = partial(stage, output)
            errors[name] = float(f"{f32_error(stage_in):.2g}")
            trained = stage_in(torch.float32)
            save_tensors(output / "training" / f"{name}.safetensors", trained.inputs | train(trained))
    save_json(output / "training" / "f32_errors.json", errors)
