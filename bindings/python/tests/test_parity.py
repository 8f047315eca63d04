"""Against diffusers and transformers in the same process, within the bounds of the Rust tests.

diffusers 0.31 and transformers 4.46 have AltDiffusion's pipeline.
"""

import json

import numpy as np
import pytest
from PIL import Image

import altdiffusion
from conftest import GOLDEN, MODULE_TOLERANCE, PICTURES, RUN_TOLERANCE, relative_error

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
reference = pytest.importorskip(
    "diffusers.pipelines.deprecated.alt_diffusion", reason="this version of diffusers has no AltDiffusion"
)

MODELS = ["alt_diffusion", "alt_diffusion_m18"]
PROMPTS = ["一只戴帽子的小狗", "a red apple", "", "Größere Straßenbahn fährt über die Brücke", "два коти " * 60]


def parts(model: str) -> dict:
    """The parts of a tiny model, which diffusers cannot load from its `model_index.json`."""
    from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
        RobertaSeriesModelWithTransformation,
    )

    folder = GOLDEN / model
    scheduler = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["scheduler"][1])
    return dict(
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=transformers.XLMRobertaTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False),
        vae=diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False),
        scheduler=scheduler.from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pipeline(model: str, kind=None):
    pipe = (kind or diffusers.AltDiffusionPipeline)(**parts(model))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("model", MODELS)
def test_hidden_states_are_those_of_transformers(model):
    pipe = pipeline(model)
    encoder = altdiffusion.TextEncoder(GOLDEN / model)
    assert encoder.length == pipe.tokenizer.model_max_length
    inputs = pipe.tokenizer(
        PROMPTS, padding="max_length", max_length=encoder.length, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = pipe.text_encoder(inputs.input_ids).projection_state
        if getattr(pipe.text_encoder.config, "use_attention_mask", False):
            expected = pipe.text_encoder(inputs.input_ids, attention_mask=inputs.attention_mask).projection_state
    states = encoder.encode(PROMPTS)
    assert relative_error(states, expected) <= MODULE_TOLERANCE
    tensor = states.torch()
    assert tensor.data_ptr() == states.numpy().ctypes.data and tensor.shape == states.shape


@pytest.mark.parametrize("model", MODELS)
def test_hidden_states_go_straight_into_diffusers(model):
    arguments = dict(num_inference_steps=5, guidance_scale=3.0, height=64, width=64, output_type="np")
    start = lambda: torch.Generator().manual_seed(7)  # noqa: E731
    expected = pipeline(model)(PROMPTS[0], negative_prompt="模糊", generator=start(), **arguments).images
    pipe = pipeline(model, diffusers.StableDiffusionPipeline)
    pipe.text_encoder = pipe.tokenizer = None
    negative, prompt = altdiffusion.TextEncoder(GOLDEN / model).encode(["模糊", PROMPTS[0]]).torch().split(1)
    found = pipe(prompt_embeds=prompt, negative_prompt_embeds=negative, generator=start(), **arguments).images
    assert relative_error(found, expected) <= MODULE_TOLERANCE


def both(model: str, own: altdiffusion.Pipeline | None = None, pipe=None, start=None, **arguments):
    """The latents of this package and of diffusers, from generators in the same state."""
    start = start or (lambda: torch.Generator().manual_seed(2**33 + 7))
    own = own or altdiffusion.Pipeline(GOLDEN / model)
    arguments = dict(prompt="一只猫", num_inference_steps=4, guidance_scale=2.5, height=40, width=24) | arguments
    generators = start(), start()
    found = own(generator=generators[0], output_type="latent", **arguments).images
    expected = (pipe or pipeline(model))(generator=generators[1], output_type="latent", **arguments).images
    pairs = zip(*([g] if isinstance(g, torch.Generator) else g for g in generators))
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in pairs)
    return found, expected


def used() -> torch.Generator:
    generator = torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)
    return generator


STARTS = {
    "fresh": (lambda: torch.Generator().manual_seed(7), 2),
    "used": (used, 1),
    "one for each image": (lambda: [torch.Generator().manual_seed(seed) for seed in (9, 4, 2)], 3),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("model", MODELS)
def test_a_generator_gives_the_same_image(model, start):
    start, images = STARTS[start]
    found, expected = both(model, start=start, num_images_per_prompt=images)
    assert relative_error(found, expected) <= RUN_TOLERANCE


def test_noise_of_the_steps_comes_from_the_generator_too():
    pipe = pipeline(MODELS[0])
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    own = altdiffusion.Pipeline(GOLDEN / MODELS[0])
    start = used()
    state = start.get_state()
    found = own("一只猫", steps=4, guidance_scale=2.5, height=40, width=24, scheduler="euler-a", generator=start)
    start.set_state(state)
    expected = pipe("一只猫", 40, 24, 4, guidance_scale=2.5, generator=start, output_type="latent").images
    assert relative_error(found.latents, expected) <= RUN_TOLERANCE


def test_a_seed_is_a_generator():
    own = altdiffusion.Pipeline(GOLDEN / MODELS[0])
    for seed in (0, 7, 2**40):
        generator = torch.Generator().manual_seed(seed)
        found = own("猫", steps=2, width=64, height=64, seed=seed).latents
        np.testing.assert_array_equal(found, own("猫", steps=2, width=64, height=64, generator=generator).latents)


@pytest.mark.parametrize("model", MODELS)
def test_an_image_is_redrawn_as_in_diffusers(model):
    image = Image.fromarray((np.arange(40 * 24 * 3) % 255).astype(np.uint8).reshape(40, 24, 3))
    pipe = pipeline(model, diffusers.AltDiffusionImg2ImgPipeline)
    found, expected = (
        run(
            prompt="一只猫",
            image=image,
            strength=0.7,
            num_inference_steps=5,
            guidance_scale=2.5,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        ).images
        for run in (altdiffusion.Pipeline(GOLDEN / model), pipe)
    )
    assert relative_error(found, expected) <= RUN_TOLERANCE


@pytest.mark.parametrize("model", MODELS)
def test_a_lora_changes_the_image_as_in_diffusers(model):
    pytest.importorskip("peft", reason="PEFT, which diffusers needs for LoRAs, is not installed")
    file = f"{model}.diffusers.safetensors"
    pipe, own = pipeline(model), altdiffusion.Pipeline(GOLDEN / model)
    before, _ = both(model, own, pipe)
    for each in (pipe, own):
        each.load_lora_weights(GOLDEN / "adapters", weight_name=file, adapter_name="a")
        each.set_adapters(["a"], [0.8])
    found, expected = both(model, own, pipe)
    assert relative_error(found, expected) <= RUN_TOLERANCE
    assert relative_error(found, before) > 100 * RUN_TOLERANCE
    own.unload_lora_weights()
    np.testing.assert_array_equal(both(model, own, pipe)[0], before)


def test_embeddings_are_those_of_transformers():
    folder = GOLDEN / "dual_encoders" / "clip"
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    embedder = altdiffusion.Embedder(folder)
    texts = ["a red apple", "two cats, one dog!", ""]
    images = [Image.open(path).convert("RGB") for path in sorted(PICTURES.glob("*.png"))[:6]]
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        of_texts = model.get_text_features(**inputs)
        of_images = model.get_image_features(processor(images, return_tensors="pt").pixel_values)
        logits = model(
            pixel_values=processor(images, return_tensors="pt").pixel_values, **inputs
        ).logits_per_image
    texts, images = embedder.embed_texts(texts), embedder.embed_images(images)
    assert relative_error(texts, of_texts) <= MODULE_TOLERANCE
    assert relative_error(images, of_images) <= MODULE_TOLERANCE
    assert relative_error(embedder.similarity(images, texts), logits) <= MODULE_TOLERANCE
