"""Prompts to images, against the golden values of the Rust tests: diffusers' own results."""

import pickle

import numpy as np
import pytest
from PIL import Image

import altdiffusion
from conftest import GOLDEN, RUN_TOLERANCE, golden_json, golden_tensors, relative_error

MODELS = ["alt_diffusion", "alt_diffusion_m18"]
SCHEDULERS = {
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpm++-2m",
    "DPMSolverSinglestepScheduler": "dpm++-s",
    "EulerAncestralDiscreteScheduler": "euler-a",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "UniPCMultistepScheduler": "unipc",
}


def arguments(case: dict) -> dict:
    """A golden case as arguments: diffusers' own, with the scheduler by its name here."""
    own = ("name", "repository", "controls", "mask", "channels", "global_pool_conditions", "scheduler_config")
    result = {key: value for key, value in case.items() if key not in own}
    config = case.get("scheduler_config", {})
    if "scheduler" in case:
        result["scheduler"] = SCHEDULERS[case["scheduler"]]
        if "algorithm_type" in config:
            result["scheduler"] = "dpm++-2m-sde"
    if config.get("use_karras_sigmas"):
        result["sigma_spacing"] = "karras"
    return result


@pytest.mark.parametrize("model", MODELS)
def test_images_are_those_of_diffusers(model):
    pipeline = altdiffusion.Pipeline(GOLDEN / model)
    golden = golden_tensors("pipeline.safetensors")
    for case in golden_json("pipeline.json"):
        name = f"{model}.{case['name']}"
        found = pipeline(**arguments(case), latents=golden.get(f"{name}.initial_latents"), output_type="np")
        assert relative_error(found.latents, golden[f"{name}.latents"]) <= RUN_TOLERANCE, name
        # Images have 8 bits.
        difference = np.abs(found.images.transpose(0, 3, 1, 2) - golden[f"{name}.picture"])
        assert difference.max() <= 0.6 / 255, name


def test_another_autoencoder_decodes_the_same_latents(tmp_path):
    prompt = dict(prompt="一只猫", num_inference_steps=2, seed=1, output_type="np")
    plain = altdiffusion.Pipeline(GOLDEN / MODELS[0])(**prompt)
    pipeline = altdiffusion.Pipeline(GOLDEN / MODELS[0], vae=GOLDEN / MODELS[1] / "vae")
    changed = pickle.loads(pickle.dumps(pipeline))(**prompt)
    assert (changed.latents == plain.latents).all()
    assert (changed.images != plain.images).any()
    with pytest.raises(altdiffusion.Error, match="expected an autoencoder"):
        altdiffusion.Pipeline(GOLDEN / MODELS[0], vae=GOLDEN / MODELS[0] / "unet")


@pytest.mark.parametrize("model", MODELS)
def test_loras_and_words_are_those_of_diffusers(model):
    golden = golden_tensors("adapters/golden.safetensors")
    folder = GOLDEN / "adapters"
    for case in golden_json("adapters/cases.json"):
        pipeline = altdiffusion.Pipeline(GOLDEN / model)
        for lora in case.get("loras", {}):
            pipeline.load_lora_weights(folder, weight_name=f"{model}.{lora}.safetensors", adapter_name=lora)
        if "loras" in case:
            pipeline.set_adapters(list(case["loras"]), list(case["loras"].values()))
        for word in case.get("words", []):
            ending = "safetensors" if (folder / f"{word}.safetensors").exists() else "pt"
            pipeline.load_textual_inversion(folder / f"{word}.{ending}")
        name = f"{model}.{case['name']}"
        found = pickle.loads(pickle.dumps(pipeline))(
            case["prompt"],
            width=40,
            height=32,
            num_inference_steps=3,
            guidance_scale=2.5,
            clip_skip=case.get("clip_skip"),
            latents=golden[f"{name}.initial_latents"],
        )
        assert relative_error(found.latents, golden[f"{name}.latents"]) <= RUN_TOLERANCE, name


def test_images_and_masks_are_those_of_diffusers():
    golden = golden_tensors("given_images.safetensors")
    image, mask = Image.fromarray(golden["given"]), Image.fromarray(golden["mask"])
    cases = [case for case in golden_json("given_images.json") if "channels" not in case]
    for model in MODELS:
        pipeline = altdiffusion.Pipeline(GOLDEN / model)
        for case in cases:
            expected = golden.get(f"{model}.{case['name']}.latents")
            if expected is None:
                continue
            is_masked = case["name"].startswith("part")
            found = pipeline(**arguments(case), image=image, mask_image=mask if is_masked else None)
            assert relative_error(found.latents, expected) <= RUN_TOLERANCE, case["name"]


def test_controlnets_are_those_of_diffusers():
    golden = golden_tensors("controlnet/pipeline.safetensors")
    controls = [Image.fromarray(golden["control.0"])]
    drawn = 0
    for case in golden_json("controlnet/pipeline.json"):
        net = GOLDEN / "controlnet" / ("sd2" if case["repository"].endswith("m18") else "sd1")
        if len(case["controls"]) > 1 or case.get("channels") or case.get("global_pool_conditions"):
            continue
        pipeline = altdiffusion.Pipeline(GOLDEN / case["repository"], controlnet=net)
        (control,) = case["controls"]
        options = arguments(case)
        if "strength" in case:
            options["image"] = golden["given"]
        if case.get("mask"):
            options["mask_image"] = golden["mask"]
        found = pipeline(
            **options,
            control_image=controls,
            controlnet_conditioning_scale=control["scale"],
            control_guidance_start=control["start"],
            control_guidance_end=control["end"],
        )
        name = f"{case['repository']}.{case['name']}"
        assert relative_error(found.latents, golden[f"{name}.latents"]) <= RUN_TOLERANCE, name
        if "image" not in options:
            # As StableDiffusionControlNetPipeline takes it.
            (scale, start, end) = (control["scale"], control["start"], control["end"])
            also = pipeline(
                **options,
                image=controls[0],
                controlnet_conditioning_scale=scale,
                control_guidance_start=start,
                control_guidance_end=end,
            )
            np.testing.assert_array_equal(also.latents, found.latents)
        drawn += 1
    assert drawn >= 4


def test_the_names_of_diffusers_are_accepted(pipeline):
    same = dict(num_images_per_prompt=2, width=64, height=64)
    a = pipeline("一只猫", num_inference_steps=3, guidance_scale=2.0, seed=7, negative_prompt="狗", **same)
    b = pipeline("一只猫", 64, 64, 3, 2.0, ["狗"], 2, seed=7)
    assert [image.size for image in a.images] == [(64, 64)] * 2 and a.nsfw_content_detected is None
    np.testing.assert_array_equal(a.latents, b.latents)
    images, flagged = a
    assert a[0] is images and flagged is None
    assert a["images"] is images and a["nsfw_content_detected"] is None
    with pytest.raises(KeyError, match="image"):
        a["image"]
    short = pipeline("一只猫", steps=3, guidance_scale=2.0, seed=7, negative_prompt="狗", **same)
    np.testing.assert_array_equal(a.latents, short.latents)
    assert isinstance(a.images[0], Image.Image)
    # A notebook shows it.
    assert len(repr(a)) < 300
    numbers = {"height": np.int64(64), "width": np.int32(64), "steps": np.int64(3), "seed": np.uint64(7)}
    own = pipeline("一只猫", guidance_scale=np.float32(2), negative_prompt="狗", num_images_per_prompt=np.int8(2), **numbers)
    np.testing.assert_array_equal(a.latents, own.latents)
    latents = pipeline("一只猫", steps=3, output_type="latent").images
    assert latents.shape == (1, 12, 8, 8) and latents.dtype == np.float32


def test_hidden_states_draw_what_their_texts_draw(pipeline):
    encoder = altdiffusion.TextEncoder()
    states = encoder.encode(["", "一只猫", "a dog"])
    prompts = ["一只猫", "a dog"]
    expected = pipeline(prompts, steps=3, seed=3).latents
    found = pipeline(prompt_embeds=states[1:], negative_prompt_embeds=states[:1], steps=3, seed=3).latents
    assert relative_error(found, expected) <= RUN_TOLERANCE
    # A negative prompt for each.
    expected = [pipeline(prompt, steps=3, negative_prompt=negative, latents=expected[i : i + 1] * 0 + 1).latents
                for i, (prompt, negative) in enumerate(zip(prompts, ["", "狗"]))]
    found = pipeline(prompts, steps=3, negative_prompt=["", "狗"], latents=np.ones((2, 12, 8, 8), np.float32)).latents
    assert relative_error(found, np.concatenate(expected)) <= RUN_TOLERANCE


def test_callbacks_see_every_step(pipeline):
    seen, by_step = [], []

    def callback(step, timestep, latents):
        seen.append((step, timestep, latents.shape))

    def on_step_end(own, step, timestep, tensors):
        assert own is pipeline
        by_step.append(tensors["latents"].copy())
        return tensors

    drawn = pipeline("一只猫", steps=5, callback=callback, callback_steps=2, callback_on_step_end=on_step_end)
    assert [step for step, _, _ in seen] == [0, 2, 4] and seen[0][2] == (1, 12, 8, 8)
    assert [timestep for _, timestep, _ in seen] == sorted((timestep for _, timestep, _ in seen), reverse=True)
    np.testing.assert_array_equal(by_step[-1], drawn.latents)

    def failing(step, timestep, latents):
        raise KeyError("stop here")

    with pytest.raises(KeyError, match="stop here"):
        pipeline("一只猫", steps=5, callback=failing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "prompt: expected either texts or prompt_embeds"),
        ({"prompt": "a", "prompt_embeds": np.zeros((1, 77, 128))}, "prompt: expected either"),
        ({"prompt": 7}, "prompt: expected texts, found int"),
        ({"prompt": ["a", 7]}, "prompt 1: expected a text, found int"),
        ({"prompt": "a", "negative_prompt": ["a", None]}, "negative_prompt 1: expected a text, found NoneType"),
        ({"prompt": "a", "steps": "3"}, "num_inference_steps '3': expected a whole number"),
        ({"prompt": "a", "width": 64.0}, "width 64.0: expected a whole number"),
        ({"prompt": "a", "num_images_per_prompt": 0}, "images"),
        ({"prompt": "a", "seed": 1.5}, "seed 1.5: expected a whole number"),
        ({"prompt": "a", "guidance_scale": "3"}, "guidance_scale 3: expected a number"),
        ({"prompt": "a", "seed": -1}, "seed -1: expected a number from 0"),
        ({"prompt": "a", "steps": 3, "num_inference_steps": 3}, "num_inference_steps, steps: expected one"),
        ({"prompt": "a", "width": 63}, "width: 63 pixels, expected a multiple of 8"),
        ({"prompt": "a", "scheduler": "fastest"}, "fastest"),
        ({"prompt": "a", "strength": 0.5}, "strength: expected an image"),
        ({"prompt": "a", "control_image": np.zeros((64, 64, 3), np.uint8)}, "control_image: expected 0"),
        ({"prompt": "a", "output_type": "jpg"}, "output_type"),
        ({"prompt": "a", "generator": 7}, "generator: expected a torch.Generator"),
        ({"prompt": "a", "callback": print, "callback_steps": 0}, "callback_steps 0"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale nan: expected a number"),
        ({"prompt": "a", "latents": np.zeros((1, 2, 3, 4))}, "initial latents"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c", "d", "e"]}, "negative"),
    ],
)
def test_mistakes_are_errors_in_one_line(pipeline, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        pipeline(**options)
    assert isinstance(raised.value, altdiffusion.InputError) and "\n" not in str(raised.value)


def test_loras_are_managed_by_name(pipeline):
    own = pickle.loads(pickle.dumps(pipeline))
    with pytest.raises(altdiffusion.FileError, match="none.safetensors: no such file"):
        own.load_lora_weights("none.safetensors")
    with pytest.raises(ValueError, match="adapter ink: expected one of none"):
        own.set_adapters("ink")
    # A LoRA of another model is refused, and the model stays as it was.
    with pytest.raises(altdiffusion.Error, match="for another architecture"):
        own.load_lora_weights(GOLDEN / "adapters" / "alt_diffusion.kohya.safetensors")
    assert repr(own) == "Pipeline('emoji', dtype='f32', device='auto')"
    assert own.to("cpu").to("cpu") is own and "device='cpu'" in repr(own)
    np.testing.assert_array_equal(own("猫", steps=2).latents, pipeline("猫", steps=2).latents)


def test_images_are_enlarged(pipeline):
    def size(own, **options):
        return own("a cat", steps=2, seed=1, **options).images[0].size

    assert size(pipeline, scale=3) == (192, 192)
    # By default as the command does, while a size is exact, as in diffusers.
    assert (size(pipeline), size(pipeline, scale=1)) == ((256, 256), (64, 64))
    assert (size(pipeline, width=72), size(pipeline, width=72, height=64, scale=2)) == ((72, 64), (144, 128))
    other = altdiffusion.Pipeline(GOLDEN / MODELS[0])
    assert size(other) == other.default_size
    with pytest.raises(altdiffusion.InputError, match="scale: 5, expected"):
        pipeline("a cat", steps=2, scale=5)
