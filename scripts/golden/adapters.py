"""`adapters/`: LoRA and textual inversion files, and images drawn with them by `AltDiffusionPipeline`.

Also needs PEFT: ``pip install --target overlay --no-deps peft==0.13.2 accelerate==1.1.1 psutil``.
"""

from pathlib import Path

import torch

from common import normal, save_json, save_tensors
from pipeline import load

RANK = 3
#: The layers of the UNet that LoRAs change, with the shapes of their weights.
UNET_LAYERS = (
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.resnets.0.conv1",
    "up_blocks.1.upsamplers.0.conv",
)
TEXT_LAYERS = (
    "roberta.encoder.layer.0.attention.self.query",
    "roberta.encoder.layer.1.output.dense",
)
#: The LoRAs of each case, and their strengths.
CASES = (
    dict(name="diffusers", loras={"diffusers": 0.8}, prompt="一只猫"),
    dict(name="kohya", loras={"kohya": 1.0}, prompt="a red apple"),
    dict(name="both", loras={"diffusers": 0.7, "kohya": -0.4}, prompt="eine rote Katze"),
    dict(name="words", words=["cat-toy", "webui"], prompt="a photo of <cat-toy>, 一只webui狗"),
    dict(name="clip-skip", clip_skip=1, prompt="два коти"),
)


def low_rank(name: str, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up matrices for a weight, large enough to matter."""
    out, inputs, *kernel = weight.shape
    fan_in = weight[0].numel()
    down = normal(f"{name}.down", RANK, inputs, *kernel) * fan_in**-0.5
    up = normal(f"{name}.up", out, RANK, *[1 for _ in kernel]) * 0.5
    return down, up


def make_loras(repository: str, folder: Path, pipeline) -> None:
    weights = pipeline.unet.state_dict()
    peft, kohya = {}, {}
    for layer in UNET_LAYERS:
        down, up = low_rank(f"{repository}.peft.{layer}", weights[f"{layer}.weight"])
        peft[f"unet.{layer}.lora_A.weight"], peft[f"unet.{layer}.lora_B.weight"] = down, up
        down, up = low_rank(f"{repository}.kohya.{layer}", weights[f"{layer}.weight"])
        name = f"lora_unet_{layer.replace('.', '_')}"
        kohya[f"{name}.lora_down.weight"], kohya[f"{name}.lora_up.weight"] = down, up
        kohya[f"{name}.alpha"] = torch.tensor(1.5)
    text = pipeline.text_encoder.state_dict()
    for layer in TEXT_LAYERS:
        down, up = low_rank(f"{repository}.peft.{layer}", text[f"{layer}.weight"])
        peft[f"text_encoder.{layer}.lora_A.weight"], peft[f"text_encoder.{layer}.lora_B.weight"] = down, up
    save_tensors(folder / f"{repository}.diffusers.safetensors", peft)
    save_tensors(folder / f"{repository}.kohya.safetensors", kohya)


def make_words(folder: Path, width: int) -> None:
    """Write a word of three vectors in diffusers' format, one of a single vector in stable-diffusion-webui's, and one alone."""
    save_tensors(folder / "cat-toy.safetensors", {"<cat-toy>": normal("cat-toy", 3, width) * 0.6})
    embedding = {"string_to_token": {"*": 265}, "string_to_param": {"*": normal("webui", 1, width) * 0.6}, "name": "x"}
    torch.save(embedding, folder / "webui.pt")
    torch.save(embedding["string_to_param"]["*"], folder / "alone.pt")


def apply_loras(pipeline, folder: Path, repository: str, loras: dict[str, float]) -> None:
    for name, strength in loras.items():
        file = f"{repository}.{name}.safetensors"
        state_dict, alphas = pipeline.lora_state_dict(str(folder), weight_name=file)
        text = {key: value for key, value in state_dict.items() if key.startswith("text_encoder.")}
        unet = {key: value for key, value in state_dict.items() if key.startswith("unet.")}
        pipeline.load_lora_into_unet(unet, alphas, pipeline.unet, adapter_name=name)
        # diffusers only supports the layers of CLIP's text encoder, so these are merged by hand.
        weights = dict(pipeline.text_encoder.named_parameters())
        for key, down in text.items():
            if key.endswith(".lora_A.weight"):
                layer = key.removeprefix("text_encoder.").removesuffix(".lora_A.weight")
                up = text[key.replace("lora_A", "lora_B")]
                weights[f"{layer}.weight"] += strength * (up @ down).to(weights[f"{layer}.weight"].dtype)
    pipeline.unet.set_adapters(list(loras), list(loras.values()))


def skipped(pipeline, prompt: str, clip_skip: int) -> torch.Tensor:
    """The hidden states of a prompt, from `clip_skip` layers before the encoder's usual one."""
    encoder = pipeline.text_encoder
    inputs = pipeline.tokenizer(
        prompt,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    mask = inputs.attention_mask if encoder.config.use_attention_mask else None
    states = encoder.roberta(inputs.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if encoder.has_pre_transformation:
        return encoder.transformation_pre(encoder.pre_LN(states[-2 - clip_skip]))
    return encoder.transformation(states[-1 - clip_skip])


def make(output: Path) -> None:
    folder = output / "adapters"
    folder.mkdir(exist_ok=True)
    tensors = {}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        pipeline = load(output / repository, {})
        make_loras(repository, folder, pipeline)
        if repository == "alt_diffusion":
            make_words(folder, pipeline.text_encoder.config.hidden_size)
        assert pipeline.text_encoder.config.hidden_size == 16
        for case in CASES:
            prefix = f"{repository}.{case['name']}"
            initial = normal(f"{prefix}.initial", 1, 4, 4, 5)

            def draw(dtype: torch.dtype) -> torch.Tensor:
                pipeline = load(output / repository, {}).to(dtype)
                for word in case.get("words", ()):
                    file = folder / f"{word}.safetensors"
                    token = {"webui": "webui"}.get(word)
                    file = file if file.exists() else folder / f"{word}.pt"
                    pipeline.load_textual_inversion(str(file), token=token)
                if "loras" in case:
                    apply_loras(pipeline, folder, repository, case["loras"])
                if "clip_skip" in case:
                    prompt = dict(
                        prompt_embeds=skipped(pipeline, case["prompt"], case["clip_skip"]),
                        negative_prompt_embeds=skipped(pipeline, "", case["clip_skip"]),
                    )
                else:
                    prompt = dict(prompt=case["prompt"])
                if dtype == torch.float32 and "words" in case:
                    converted = pipeline.maybe_convert_prompt(case["prompt"], pipeline.tokenizer)
                    tensors[f"{prefix}.ids"] = torch.tensor(pipeline.tokenizer(converted).input_ids)
                return pipeline(
                    latents=initial.to(dtype),
                    guidance_scale=2.5,
                    num_inference_steps=3,
                    height=32,
                    width=40,
                    output_type="latent",
                    **prompt,
                ).images

            latents, exact = draw(torch.float32), draw(torch.float64)
            error = ((latents - exact).norm() / exact.norm()).item()
            print(f"  {prefix}: f32 latents are within {error:.1e} of f64")
            tensors[f"{prefix}.initial_latents"] = initial
            tensors[f"{prefix}.latents"] = latents
    save_json(folder / "cases.json", list(CASES))
    save_tensors(folder / "golden.safetensors", tensors)
