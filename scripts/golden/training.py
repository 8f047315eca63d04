"""`training/`: twenty steps of every training stage on the tiny models, by PyTorch.

Each file has the inputs of a stage, the `losses` and `gradient_norms` of all steps, and for comparing the first gradient
`first.NAME` for each weight: the gradient's norm and its inner product with the weight. The weights are those of
`dual_encoders/altclip`, `alt_diffusion` and `alt_diffusion_m18`.
"""

import math
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import RobertaSeriesModelWithTransformation
from peft import LoraConfig
from torch.nn import functional as F
from transformers import AltCLIPModel

from common import normal, save_tensors

STEPS = 20
WARMUP = 3
LEARNING_RATE = 2e-3
#: At ten times this, PyTorch's own f32 and f64 diverge by 1e-2 on `guidance`: Adam's first steps have the size of the
#: learning rate, however small and uncertain in sign a gradient is.
DIFFUSION_LEARNING_RATE = 2e-4
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
MAX_GRAD_NORM = 1.0


def learning_rate(peak: float, step: int) -> float:
    progress = min(max(step - WARMUP, 0) / (STEPS - WARMUP), 1)
    return peak * min((step + 1) / WARMUP, 1) * 0.5 * (1 + math.cos(math.pi * progress))


def train(named, loss_of, peak: float = LEARNING_RATE) -> dict[str, torch.Tensor]:
    """Train the parameters `named` for STEPS steps; `loss_of` takes the step."""
    named = [(name, parameter) for name, parameter in named]
    groups = [
        {"params": [p for _, p in named if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=BETAS, eps=1e-8)
    losses, norms, first = [], [], {}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, step)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(step)
        loss.backward()
        if step == 0:
            for name, parameter in named:
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                gradient = gradient.double()
                first[f"first.{name}"] = torch.stack([gradient.norm(), (gradient * parameter.double()).sum()]).float()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], MAX_GRAD_NORM).item())
        optimizer.step()
    print(f"    loss {losses[0]:.5f} to {losses[-1]:.5f}")
    return {"losses": torch.tensor(losses), "gradient_norms": torch.tensor(norms), **first}


def texts(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of texts of different lengths, and their mask."""
    ids, mask = torch.ones(count, 12, dtype=torch.int64), torch.zeros(count, 12, dtype=torch.int64)
    for row in range(count):
        length = 4 + row % 7
        values = (normal(f"{name}.{row}", length).abs() * 1000).long() % 93 + 4
        ids[row, :length], mask[row, :length] = values, 1
        ids[row, 0], ids[row, length - 1] = 0, 2
    return ids, mask


def text_model(output: Path):
    model = AltCLIPModel.from_pretrained(output / "dual_encoders" / "altclip", attn_implementation="eager").eval()
    is_text = ("text_model.", "text_projection.", "logit_scale")
    named = [(n, p) for n, p in model.named_parameters() if n.startswith(is_text) and "pooler" not in n]
    return model, named


def teacher(output: Path) -> None:
    model, named = text_model(output)
    named = [(n, p) for n, p in named if n != "logit_scale"]
    ids, mask = texts("training.teacher", 8)
    vectors = normal("training.teacher.vectors", 8, model.config.projection_dim)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.arange(5) + step
        found = model.get_text_features(input_ids=ids[rows % 8], attention_mask=mask[rows % 8])
        return F.mse_loss(found, vectors[rows % 8])

    results = train(named, loss_of)
    inputs = {"input_ids": ids, "attention_mask": mask, "vectors": vectors}
    save_tensors(output / "training" / "teacher.safetensors", inputs | results)


def contrastive(output: Path) -> None:
    model, named = text_model(output)
    ids, mask = texts("training.contrastive", 12)
    pictures = F.normalize(normal("training.contrastive.pictures", 12, model.config.projection_dim), dim=1)

    def loss_of(step: int) -> torch.Tensor:
        rows = (torch.arange(7) + step) % 12
        found = model.get_text_features(input_ids=ids[rows], attention_mask=mask[rows])
        logits = model.logit_scale.exp().clamp(max=100) * pictures[rows] @ F.normalize(found, dim=1).T
        targets = torch.arange(7)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    results = train(named, loss_of)
    inputs = {"input_ids": ids, "attention_mask": mask, "pictures": pictures}
    save_tensors(output / "training" / "contrastive.safetensors", inputs | results)


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
        noisy = scheduler.add_noise(latents[rows], noise[step], times)
        hidden = states[rows].clone() if condition is None else condition(rows)
        # With dropout, the second caption of every other batch is the empty one.
        if dropped and step % 2 == 1:
            hidden[1] = empty
        found = unet(noisy, times, encoder_hidden_states=hidden).sample
        velocity = prediction == "v_prediction"
        target = scheduler.get_velocity(latents[rows], noise[step], times) if velocity else noise[step]
        error = F.mse_loss(found, target, reduction="none").mean(dim=(1, 2, 3))
        if gamma is not None:
            # Weighted as in diffusers' train_text_to_image.py.
            snr = compute_snr(scheduler.alphas_cumprod, times)
            weights = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
            error = error * (weights / (snr + 1) if velocity else weights / snr)
        return error.mean()

    inputs = {"latents": latents, "noise": noise, "states": states, "empty": empty, "timesteps": timesteps}
    return loss_of, inputs


def diffusion(output: Path, name: str, repository: str, is_trained, gamma, prediction: str, dropped: bool) -> None:
    unet = UNet2DConditionModel.from_pretrained(output / repository, subfolder="unet", low_cpu_mem_usage=False).eval()
    for key, parameter in unet.named_parameters():
        parameter.requires_grad_(is_trained(key))
    named = [(n, p) for n, p in unet.named_parameters() if is_trained(n)]
    loss_of, inputs = noise_loss(name, unet, prediction, gamma, dropped)
    results = train(named, loss_of, DIFFUSION_LEARNING_RATE)
    save_tensors(output / "training" / f"{name}.safetensors", inputs | results)


def matrices_of(unet) -> list[tuple[str, torch.nn.Parameter]]:
    """PEFT's matrices under this project's names."""
    named = []
    for name, parameter in unet.named_parameters():
        if ".lora_" in name:
            name = name.replace(".lora_A.default.", ".lora_down.").replace(".lora_B.default.", ".lora_up.")
            named.append((name, parameter))
    return named


def low_rank(output: Path) -> None:
    """Train a LoRA of the attentions and a feed-forward with PEFT."""
    unet = UNet2DConditionModel.from_pretrained(
        output / "alt_diffusion", subfolder="unet", low_cpu_mem_usage=False
    ).eval()
    unet.requires_grad_(False)
    layers = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=layers))
    named = matrices_of(unet)
    begin = {}
    for name, parameter in named:
        # Neither matrix is zero, so that both have gradients from the first step on. The second is small, as in
        # training: if it were as large as the weights, PyTorch's f32 and f64 would diverge by 1e-2 within five steps.
        scale = 0.05 if ".lora_up." in name else parameter.shape[1] ** -0.5
        parameter.data = normal(f"training.lora.{name}", *parameter.shape) * scale
        begin[f"begin.{name}"] = parameter.detach().clone()
    loss_of, inputs = noise_loss("lora", unet, "epsilon", None, False)
    results = train(named, loss_of, DIFFUSION_LEARNING_RATE)
    save_tensors(output / "training" / "lora.safetensors", inputs | begin | results)


def textual_inversion(output: Path) -> None:
    """Train two embeddings of a word, through the text encoder and the UNet."""
    encoder = RobertaSeriesModelWithTransformation.from_pretrained(
        output / "alt_diffusion", subfolder="text_encoder"
    ).eval()
    unet = UNet2DConditionModel.from_pretrained(
        output / "alt_diffusion", subfolder="unet", low_cpu_mem_usage=False
    ).eval()
    unet.requires_grad_(False)
    encoder.requires_grad_(False)
    words = encoder.roberta.embeddings.word_embeddings
    vectors = torch.nn.Parameter(normal("training.word.vectors", 2, words.embedding_dim) * 0.1)
    begin = vectors.detach().clone()
            # Ids past the table's end are the word's.
    first = words.num_embeddings
    ids = torch.tensor([[0, 17, first, first + 1, 2, 1, 1], [0, first, first + 1, 40, 9, 23, 2]])
    mask = (ids != 1).long()

    def states() -> torch.Tensor:
        table = torch.cat([words.weight, vectors])
        return encoder(inputs_embeds=table[ids], attention_mask=mask, position_ids=positions(ids)).projection_state

    loss_of, inputs = noise_loss("word", unet, "epsilon", None, False, lambda rows: states())
    results = train([("vectors", vectors)], loss_of)
    more = {"input_ids": ids, "attention_mask": mask, "begin.vectors": begin}
    save_tensors(output / "training" / "word.safetensors", inputs | more | results)


def positions(ids: torch.Tensor) -> torch.Tensor:
    """XLM-R's position ids, which count the tokens other than padding from 2 on."""
    mask = (ids != 1).long()
    return torch.cumsum(mask, dim=1) * mask + 1


def make(output: Path) -> None:
    keys_and_values = lambda key: ".attn2.to_k." in key or ".attn2.to_v." in key  # noqa: E731
    everything = lambda key: True  # noqa: E731
    with torch.enable_grad():
        teacher(output)
        contrastive(output)
        diffusion(output, "keys_and_values", "alt_diffusion", keys_and_values, 5.0, "epsilon", False)
        diffusion(output, "whole", "alt_diffusion_m18", everything, 5.0, "v_prediction", False)
        diffusion(output, "guidance", "alt_diffusion", everything, None, "epsilon", True)
        low_rank(output)
        textual_inversion(output)
