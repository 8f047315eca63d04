"""Opens models with diffusers, transformers, and two packages over transformers that read multilingual text towers."""

import shutil
from importlib.metadata import version
from pathlib import Path

import diffusers
import torch
import transformers
from open_clip_files import XLM_R
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from .shared import ALT, DRAWING, ENCODERS, GOLDEN, HUAHUA, SCRATCH, attempt, distance, drawing_model, features, golden, on_hub, read


def alt_diffusion(name: str) -> float:
    """From its parts, with classes that are deprecated."""
    from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation

    folder, values, case = SCRATCH / name, load_file(GOLDEN / "pipeline.safetensors"), read(GOLDEN / "pipeline.json")[0]
    shutil.copytree(GOLDEN / name, folder)
    weights = folder / "text_encoder/pytorch_model.bin"
    if weights.exists():
        # The tiny model's unused pooler has another size than the class's, unlike published ones.
        state = torch.load(weights, weights_only=True)
        torch.save({name: tensor for name, tensor in state.items() if "pooler" not in name}, weights)
    scheduler = getattr(diffusers, read(folder / "model_index.json")["scheduler"][1])
    drawer = diffusers.AltDiffusionPipeline(
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=transformers.XLMRobertaTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        vae=diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        scheduler=scheduler.from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return drawn(drawer, values, f"{name}.{case.pop('name')}", case)


def drawn(drawer, values, prefix: str, case: dict) -> float:
    drawer.set_progress_bar_config(disable=True)
    latents = drawer(output_type="latent", latents=values[f"{prefix}.initial_latents"].clone(), **case).images
    return distance(latents, values[f"{prefix}.latents"])


def encoder(name: str) -> float:
    model, values = transformers.AutoModel.from_pretrained(GOLDEN / name), golden(name)
    # SigLIP sees its padding.
    inputs = ("input_ids",) if "siglip" in name else ("input_ids", "attention_mask")
    text = features(model.get_text_features(**{key: values[key] for key in inputs}))
    image = features(model.get_image_features(pixel_values=values["pixel_values"]))
    return max(distance(text, values["text_embeds"]), distance(image, values["image_embeds"]))


def taiyi() -> float:
    folder, values = GOLDEN / "dual_encoders/taiyi", golden("dual_encoders/taiyi")
    text = transformers.BertForSequenceClassification.from_pretrained(folder / "text_encoder")
    text = text(values["input_ids"], attention_mask=values["attention_mask"]).logits
    image = transformers.CLIPModel.from_pretrained(folder / "image_encoder")
    image = features(image.get_image_features(pixel_values=values["pixel_values"]))
    return max(distance(text, values["text_embeds"]), distance(image, values["image_embeds"]))


def sentences(folder: Path) -> float:
    found = SentenceTransformer(str(folder), device="cpu").encode(read(folder / "texts.json"))
    return distance(found, load_file(folder / "golden.safetensors")["text_embeds"])


def m_clip() -> float:
    from multilingual_clip.pt_multilingual_clip import MultilingualCLIP

    # The class asks the hub for its base, whose weights it then replaces.
    transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**XLM_R)).save_pretrained(SCRATCH / "xlm-r")
    on_hub("xlm-roberta-large", SCRATCH / "xlm-r")
    model, values = MultilingualCLIP.from_pretrained(GOLDEN / "mclip/xlm_roberta"), golden("mclip/xlm_roberta")
    tokens = {"input_ids": values["input_ids"], "attention_mask": values["attention_mask"]}
    return distance(model(None, lambda *_, **__: tokens), values["text_embeds"])


def hugging_face() -> None:
    for name in ("diffusers", "transformers", "sentence-transformers", "multilingual-clip"):
        print(f"# {name} {version(name)}")
    transformers.utils.logging.set_verbosity_error()
    for model, name in ALT.items():
        attempt("diffusers", model, lambda: str(diffusers.DiffusionPipeline.from_pretrained(GOLDEN / name)))
        attempt("diffusers, part by part", model, lambda: alt_diffusion(name))
    values, case = golden("conditioners"), read(GOLDEN / "conditioners/conditioners.json")["picture"]

    def draw(name: str) -> float:
        if name == "huahua":
            drawer = diffusers.StableDiffusionPipeline.from_single_file(str(HUAHUA), config=str(drawing_model(name)))
        else:
            drawer = diffusers.DiffusionPipeline.from_pretrained(drawing_model(name), safety_checker=None)
        return drawn(drawer, values, name, case)

    for model, name in DRAWING.items():
        attempt("diffusers", model, lambda: draw(name))
    for model, name in ENCODERS.items():
        attempt("transformers", model, lambda: encoder(name))
    attempt("transformers, both towers apart", "Taiyi-CLIP", taiyi)
    attempt("sentence-transformers", "sentence-transformers' multilingual CLIP", lambda: sentences(GOLDEN / "mclip/distilbert"))
    attempt("multilingual-clip", "M-CLIP", m_clip)
