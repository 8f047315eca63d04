"""Checks stable-diffusion-webui's interface with the package `webuiapi`."""

import base64
import contextlib
import io
import json
import threading
import time

import webuiapi
from PIL import Image, ImageChops

from client_checks.harness import raises, same
from client_checks.pictures import left_half, photo, redrawn

SIDE = {"width": 64, "height": 64}
CAT = {"prompt": "a cat", "seed": 7, "steps": 5, "cfg_scale": 2.0, **SIDE}
CAT_OPTIONS = ["--seed", 7, "--steps", 5, "--guidance-scale", 2.0, "--prompt-weights", "--scale", 1]
# What the package asks for by default.
EULER = ["--scheduler", "Euler a"]


def check(server, report):
    api = connected(server, server.key)
    checks = [lists, models, image, seeds_and_records, weights, samplers, image_to_image]
    checks += [inpainting, inpainting_at_full_size, record, progress, interruption, refusals]
    if server.key:
        checks.append(wrong_key)
    report.run("webuiapi", checks, server, api)


def connected(server, key):
    """A client; a key is the password of any user."""
    account = {"username": "anyone", "password": key} if key else {}
    return webuiapi.WebUIApi(baseurl=f"{server.address}/sdapi/v1", **account)


def decoded(file):
    return Image.open(io.BytesIO(file)).convert("RGB").tobytes()


def command_pixels(server, prompt, *options):
    return decoded(server.generated(prompt, *options))


def same_pixels(found, expected):
    found = found.convert("RGB").tobytes()
    same(len(found), len(expected))
    assert found == expected, f"{sum(a != b for a, b in zip(found, expected))} of {len(found)} values differ"


def lists(_, api):
    """what can be chosen is listed in the fields that clients read."""
    fields = {
        "samplers": {"name", "aliases", "options"},
        "schedulers": {"name", "label"},
        "sd_models": {"title", "model_name", "hash", "sha256", "filename"},
        "upscalers": {"name", "model_name", "model_path", "scale"},
        "loras": {"name", "alias", "path", "metadata"},
        "sd_vae": {"model_name", "filename"},
        "latent_upscale_modes": {"name"},
        "prompt_styles": {"name", "prompt", "negative_prompt"},
    }
    for name, expected in fields.items():
        items = getattr(api, f"get_{name}")()
        assert isinstance(items, list), (name, items)
        for item in items:
            assert expected <= set(item), (name, item)
    same(set(api.get_embeddings()), {"loaded", "skipped"})
    same(set(api.get_memory()), {"ram", "cuda"})
    assert isinstance(api.get_cmd_flags(), dict)
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    same((api.get_hypernetworks(), api.get_face_restorers(), api.get_realesrgan_models()), ([], [], []))
    same((api.controlnet_model_list(), api.controlnet_module_list()), ([], ["none"]))
    assert api.controlnet_version() > 1
    assert {"automatic", "karras"} <= set(api.util_get_scheduler_names())


def models(_, api):
    """a model is chosen."""
    same(api.util_get_model_names(), ["emoji"])
    with contextlib.redirect_stdout(io.StringIO()):
        api.util_set_model("Emoji.safetensors")
    same(api.util_get_current_model(), "emoji")
    api.refresh_checkpoints()
    api.set_options({"samples_format": "png"})
    same(api.get_options()["sd_model_checkpoint"], "emoji")


def image(server, api):
    """an image has the command's pixels."""
    found = api.txt2img(negative_prompt="blue", **CAT)
    options = [*CAT_OPTIONS, *EULER, "--negative-prompt", "blue"]
    same_pixels(found.image, command_pixels(server, "a cat", *options))
    same((found.parameters["prompt"], found.parameters["steps"]), ("a cat", 5))
    found = api.txt2img(**CAT, sampler_name="DPM++ 2M", scheduler="Karras")
    options = [*CAT_OPTIONS, "--scheduler", "DPM++ 2M Karras"]
    same_pixels(found.image, command_pixels(server, "a cat", *options))


def seeds_and_records(server, api):
    """several images come with their seeds and records."""
    found = api.txt2img(**CAT, batch_size=2, n_iter=2)
    info = found.info
    same((len(found.images), info["all_seeds"], info["seed"]), (4, [7, 8, 9, 10], 7))
    same([one.info["parameters"] for one in found.images], info["infotexts"])
    same((info["width"], info["height"], info["sampler_name"]), (64, 64, "Euler a"))
    same((info["steps"], info["cfg_scale"], info["prompt"], info["index_of_first_image"]), (5, 2.0, "a cat", 0))
    options = ["--seed", 10, *CAT_OPTIONS[2:], *EULER]
    same_pixels(found.images[3], command_pixels(server, "a cat", *options))
    found = api.txt2img(**CAT, send_images=False)
    same((found.images, found.info["seed"]), ([], 7))


def weights(server, api):
    """weights in a prompt count."""
    prompt = "a (red:1.4) cat"
    found = api.txt2img(**{**CAT, "prompt": prompt})
    same_pixels(found.image, command_pixels(server, prompt, *CAT_OPTIONS, *EULER))


def samplers(_, api):
    """every listed sampler and schedule draws, and is named in the answer."""
    for name in api.util_get_sampler_names():
        found = api.txt2img(**{**CAT, "steps": 4}, sampler_name=name)
        same((found.info["sampler_name"], found.image.size), (name, (64, 64)))
    for name in api.util_get_scheduler_names():
        api.txt2img(**{**CAT, "steps": 4}, sampler_name="DPM++ 2M", scheduler=name)


def image_to_image(server, api):
    """an image that starts from another has the command's pixels."""
    found = api.img2img(images=[Image.open(photo())], denoising_strength=0.7, **CAT)
    expected = redrawn(server, {"image": photo()}, "a cat", *CAT_OPTIONS, *EULER, "--strength", 0.7)
    same_pixels(found.image, decoded(expected))
    same(found.info["denoising_strength"], 0.7)


def inpainting(server, api):
    """inpainting has the command's pixels."""
    options = {"mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False, "denoising_strength": 0.8}
    mask = Image.open(left_half())
    found = api.img2img(images=[Image.open(photo())], mask_image=mask, **options, **CAT)
    files = {"image": photo(), "mask": left_half()}
    expected = redrawn(server, files, "a cat", *CAT_OPTIONS, *EULER, "--strength", 0.8)
    same_pixels(found.image, decoded(expected))
    inverted = ImageChops.invert(mask.convert("L"))
    again = api.img2img(
        images=[Image.open(photo())], mask_image=inverted, inpainting_mask_invert=1, **options, **CAT
    )
    same_pixels(again.image, decoded(expected))


def inpainting_at_full_size(_, api):
    """inpainting at full size, as the package asks by default, changes nothing outside the mask."""
    large = Image.open(photo()).convert("RGB").resize((192, 128))
    mask = Image.new("L", large.size)
    mask.paste(255, (60, 40, 100, 80))
    found = api.img2img(images=[large], mask_image=mask, inpaint_full_res_padding=8, **CAT)
    same(found.image.size, large.size)
    box = ImageChops.difference(found.image.convert("RGB"), large).getbbox()
    # The mask is blurred by 4 pixels, which the eye sees to three times that.
    assert box and box[0] >= 60 - 13 and box[1] >= 40 - 13 and box[2] <= 100 + 13 and box[3] <= 80 + 13, box


def record(_, api):
    """the record of an image is read."""
    drawn = api.txt2img(**CAT)
    found = api.png_info(drawn.image)
    same(found.info, drawn.info["infotexts"][0])
    same((found.parameters["Prompt"], found.parameters["Seed"]), ("a cat", "7"))


def in_background(call):
    """Starts `call`, and returns a function that waits for what it returns."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()

    def wait():
        thread.join(120)
        return outcome[0]

    return wait


def drawing(server, api):
    """Draws for a while; returns how to wait for it, once some steps are done."""
    # No size that the model draws smaller, and sooner.
    long = {**CAT, "steps": 200, "width": 248, "height": 248}
    wait = in_background(lambda: connected(server, server.key).txt2img(**long))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        seen = api.get_progress()
        if seen["state"]["sampling_step"] > 2:
            return wait, seen
        time.sleep(0.02)
    raise AssertionError(f"no step within a minute: {seen}")


def progress(server, api):
    """progress has steps, a share, a time and a preview, and ends."""
    wait, seen = drawing(server, api)
    state = seen["state"]
    same((state["job_count"], state["sampling_steps"]), (1, 200))
    assert 0 < seen["progress"] < 1 and seen["eta_relative"] > 0, seen
    assert decoded(base64.b64decode(seen["current_image"]))
    api.interrupt()
    wait()
    api.util_wait_for_ready(check_interval=0.1)
    seen = api.get_progress()
    same((seen["progress"], seen["state"]["job_count"], seen["current_image"]), (0.0, 0, None))


def interruption(server, api):
    """an interruption ends a drawing with what it has."""
    wait, _ = drawing(server, api)
    start = time.monotonic()
    same(api.interrupt(), {})
    found = wait()
    assert time.monotonic() - start < 20, f"it took {time.monotonic() - start} s"
    same((len(found.images), found.image.size), (1, (248, 248)))


def refusals(_, api):
    """what cannot be honoured is refused by name."""
    for fields, part in (
        ({"enable_hr": True}, "enable_hr"),
        ({"restore_faces": True}, "restore_faces"),
        ({"tiling": True}, "tiling"),
        ({"styles": ["a"]}, "styles"),
        ({"subseed_strength": 0.5}, "subseed_strength"),
        ({"script_name": "x/y/z plot"}, "script_name"),
        ({"sampler_name": "None of these"}, "None of these"),
        ({"steps": 100_000}, "steps"),
        ({"batch_size": 1000}, "batch_size"),
        ({"width": 100_000}, "size"),
    ):
        status, text = raises(RuntimeError, lambda: api.txt2img(**{**CAT, **fields})).args
        answer = json.loads(text)
        same((status, set(answer)), (400, {"error", "detail", "body", "errors"}))
        assert part in answer["detail"], (fields, text)
    status, _ = raises(RuntimeError, lambda: api.img2img(images=[], **CAT)).args
    same(status, 400)


def wrong_key(server, _):
    """another password is refused."""
    other = connected(server, f"{server.key}?")
    status, text = raises(RuntimeError, lambda: other.txt2img(**CAT)).args
    same((status, "detail" in json.loads(text)), (401, True))
