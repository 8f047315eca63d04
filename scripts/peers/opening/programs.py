"""Opens models with this program and stable-diffusion.cpp."""

import subprocess
from pathlib import Path

from safetensors.torch import load_file, save_file

from .shared import ALT, DRAWING, ENCODERS, GOLDEN, HUAHUA, SCRATCH, attempt, distance, drawing_model, golden, read, unit


def ours(program: Path) -> None:
    def run(*arguments) -> None:
        command = list(map(str, [program.resolve(), *arguments]))
        ended = subprocess.run(command, capture_output=True, text=True, cwd=SCRATCH)
        if ended.returncode != 0:
            raise RuntimeError(ended.stderr.strip())

    def draw(values, prefix: str, case: dict, *model) -> float:
        save_file({"latents": values[f"{prefix}.initial_latents"]}, SCRATCH / "start.safetensors")
        options = ["--negative-prompt", case["negative_prompt"], "--steps", case["num_inference_steps"]]
        options += ["--guidance-scale", case["guidance_scale"], "--num-images", case["num_images_per_prompt"]]
        options += ["--width", case["width"], "--height", case["height"], "--output", "o.png", "--no-preview"]
        files = ["--initial-latents", "start.safetensors", "--save-latents", "end.safetensors"]
        run("generate", case["prompt"], "--model", *model, *options, *files, "--device", "cpu")
        return distance(load_file(SCRATCH / "end.safetensors")["latents"], values[f"{prefix}.latents"])

    values, case = load_file(GOLDEN / "pipeline.safetensors"), read(GOLDEN / "pipeline.json")[0]
    for model, folder in ALT.items():
        attempt("altdiffusion", model, lambda: draw(values, f"{folder}.{case['name']}", case, GOLDEN / folder))
    values, case = golden("conditioners"), read(GOLDEN / "conditioners/conditioners.json")["picture"]
    for model, name in DRAWING.items():
        where = [HUAHUA, "--config", drawing_model(name)] if name == "huahua" else [drawing_model(name)]
        attempt("altdiffusion", model, lambda: draw(values, name, case, *where))

    def embed(name: str) -> float | str:
        expected, folder = golden(name), GOLDEN / name
        # R2D2's two models share their texts, and NLLB-CLIP's, and Wukong's forms.
        file = next((file for file in (folder / "texts.json", folder.parent / "texts.json") if file.exists()), None)
        if file is None or "text_embeds" not in expected:
            run("inspect", folder)
            return "inspected; the library's tests compare values"
        texts, vectors = read(file), unit(expected["text_embeds"])
        if "nllb" in name:
            # The last is cut to other lengths by the tests.
            texts, vectors = texts[:-1], vectors[:-1]
        options = [option for text in texts for option in ("--text", text)]
        run("embed", "--model", folder, *options, "--output", "o.safetensors", "--device", "cpu")
        return distance(load_file(SCRATCH / "o.safetensors")["text_embeds"], vectors)

    for model, name in ENCODERS.items():
        attempt("altdiffusion", model, lambda: embed(name))


def sd_cpp(program: Path, model: Path, second: Path | None) -> None:
    def draw(model: Path) -> str:
        output = SCRATCH / "sd.png"
        output.unlink(missing_ok=True)
        options = ["-p", "a cat", "-W", "64", "-H", "64", "--steps", "1", "-s", "1", "-o", output]
        ended = subprocess.run(list(map(str, [program, "-m", model, *options])), capture_output=True, text=True)
        if ended.returncode == 0 and output.exists():
            return "drawn"
        errors = [line for line in (ended.stdout + ended.stderr).splitlines() if "ERROR" in line]
        return f"exit code {ended.returncode}: {' | '.join(errors)}"[:240]

    def with_text_encoder(name: str, weights: Path) -> Path:
        """The other parts are those of Stable Diffusion 1.5."""
        folder = SCRATCH / f"sd-{name}"
        (folder / "text_encoder").mkdir(parents=True)
        (folder / "text_encoder/model.safetensors").symlink_to(weights.resolve())
        for part in ("unet", "vae"):
            (folder / part).symlink_to((model / part).resolve())
        return folder

    def pai() -> Path:
        """CLIP's text tower with the 21 128 pieces of a Chinese BERT."""
        tensors, file = load_file(model / "text_encoder/model.safetensors"), SCRATCH / "pai.safetensors"
        name = next(name for name in tensors if name.endswith("token_embedding.weight"))
        tensors[name] = tensors[name][:21128].clone()
        save_file(tensors, file)
        return with_text_encoder("pai", file)

    column = "stable-diffusion.cpp"
    attempt(column, "Stable Diffusion 1", lambda: draw(model))
    if second:
        attempt(column, "Stable Diffusion 2", lambda: draw(second))
    xlm_r = GOLDEN / "alt_diffusion/text_encoder/model.safetensors"
    attempt(column, "AltDiffusion", lambda: draw(with_text_encoder("alt", xlm_r)))
    bert = GOLDEN / "conditioners/taiyi/text_encoder/model.safetensors"
    attempt(column, "Taiyi-SD", lambda: draw(with_text_encoder("taiyi", bert)))
    attempt(column, "PAI-Diffusion", lambda: draw(pai()))
    attempt(column, "Wukong-Huahua", lambda: draw(HUAHUA))
