"""Opens models with open_clip and EmbedAnything."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from open_clip_files import XLM_R
from PIL import Image

from .shared import ENCODERS, GOLDEN, SCRATCH, attempt, distance, features, golden, on_hub, read, unit


def open_clip() -> None:
    import open_clip

    print(f"# open_clip_torch {version('open_clip_torch')}")
    state = torch.load(GOLDEN / "nllb_clip/base/open_clip_pytorch_model.bin", weights_only=True)
    vocabulary, width = state["text.transformer.embed_tokens.weight"].shape
    nllb = dict(encoder_layers=2, encoder_attention_heads=1, encoder_ffn_dim=72, activation_function="relu", scale_embedding=True)
    nllb |= dict(decoder_layers=1, decoder_ffn_dim=8, decoder_attention_heads=1)
    # open_clip asks the hub for the sizes of the text tower.
    configs = {
        "xlm-roberta-base": transformers.XLMRobertaConfig(**XLM_R),
        "facebook/nllb-200-distilled-600M": transformers.M2M100Config(vocab_size=vocabulary, d_model=width, **nllb),
    }
    for name, config in configs.items():
        config.save_pretrained(SCRATCH / "config" / name)
        on_hub(name, SCRATCH / "config" / name)

    def embed(name: str) -> float:
        model, values = open_clip.create_model(f"local-dir:{GOLDEN / name}", pretrained_text=False).eval(), golden(name)
        text, image = model.encode_text(values["input_ids"]), model.encode_image(values["pixel_values"])
        return max(distance(text, values["text_embeds"]), distance(image, values["image_embeds"]))

    for model, name in ENCODERS.items():
        attempt("open_clip", model, lambda: embed(name))
    own = {"CLIP": ("ViT-B-32", "openai"), "SigLIP": ("ViT-B-16-SigLIP", "webli"), "SigLIP 2": ("ViT-B-16-SigLIP2", "webli")}
    known = open_clip.list_pretrained()
    for model, name in own.items():
        attempt("open_clip, its own files", model, lambda: f"{name} is {'' if name in known else 'not '}in list_pretrained()")


def tiny(kind: str):
    """Write a model of the one image size that EmbedAnything prepares, with a tokenizer of `tests/golden`."""
    folder = SCRATCH / f"tiny-{kind}"
    torch.manual_seed(0)
    size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    vision = dict(size, image_size=224, patch_size=32)
    if kind == "clip":
        source = GOLDEN / "dual_encoders/clip"
        vocabulary = read(source / "vocab.json")
        ends = dict(bos_token_id=vocabulary["<|startoftext|>"], eos_token_id=vocabulary["<|endoftext|>"])
        text = dict(size, vocab_size=len(vocabulary), projection_dim=32, **ends)
        vision["projection_dim"] = 32
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
        transformers.CLIPTokenizerFast.from_pretrained(source).save_pretrained(folder)
    else:
        source = GOLDEN / "siglip/siglip2/tokenizer.json"
        count = len(read(source)["model"]["vocab"]) + len(read(source)["added_tokens"])
        text = dict(size, vocab_size=count, max_position_embeddings=64)
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        folder.mkdir()
        shutil.copy(source, folder)
    model.eval().save_pretrained(folder)
    config = read(folder / "config.json")
    for part in ("text_config", "vision_config"):
        # New versions of transformers leave out the activation, which published files have.
        config[part]["hidden_act"] = getattr(model.config, part).hidden_act
    (folder / "config.json").write_text(json.dumps(config))
    on_hub(f"tiny/{kind}", folder)
    return model, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def embed_anything() -> None:
    import embed_anything

    print(f"# embed-anything {version('embed-anything')}")

    def load(name: str):
        return embed_anything.EmbeddingModel.from_pretrained_hf(model_id=name)

    for model, name in ENCODERS.items():
        if model not in ("CLIP", "SigLIP", "SigLIP 2"):
            on_hub(f"golden/{name.replace('/', '-')}", GOLDEN / name)
            attempt("EmbedAnything", model, lambda: str(load(f"golden/{name.replace('/', '-')}")))

    generator, picture = np.random.Generator(np.random.PCG64(1)), SCRATCH / "picture.png"
    small = Image.fromarray(generator.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    small.resize((224, 224), Image.Resampling.BICUBIC).save(picture)
    made = {}

    def texts(kind: str, texts: list[str], padding: str, length: int) -> float:
        reference, tokenizer = made.get(kind) or made.setdefault(kind, tiny(kind))
        # Both models were trained on lower case.
        ids = [tokenizer.encode(text.lower()).ids for text in texts]
        ids = torch.tensor([row + [tokenizer.token_to_id(padding)] * (length - len(row)) for row in ids])
        model = load(f"tiny/{kind}")
        found = [embed_anything.embed_query([text], embedder=model)[0].embedding for text in texts]
        return distance(found, unit(features(reference.get_text_features(input_ids=ids))))

    def image(kind: str, **colours) -> float:
        pixels = transformers.CLIPImageProcessor(**colours)(Image.open(picture), return_tensors="pt").pixel_values
        found = embed_anything.embed_file(str(picture), embedder=load(f"tiny/{kind}"))[0].embedding
        return distance([found], unit(features(made[kind][0].get_image_features(pixel_values=pixels))))

    lower, upper = ["a red apple", "two cats"], ["A Red Apple", "Two Cats"]
    attempt("EmbedAnything", "CLIP: texts", lambda: texts("clip", lower + upper, "<|endoftext|>", 77))
    attempt("EmbedAnything", "CLIP: images", lambda: image("clip"))
    # SigLIP pads with </s>, here called <eos>, and SigLIP 2 with <pad>.
    attempt("EmbedAnything", "SigLIP: texts", lambda: texts("siglip", lower, "<eos>", 64))
    attempt("EmbedAnything", "SigLIP 2: texts", lambda: texts("siglip", lower, "<pad>", 64))
    attempt("EmbedAnything", "SigLIP 2: texts, in capitals", lambda: texts("siglip", upper, "<eos>", 64))
    attempt("EmbedAnything", "SigLIP and SigLIP 2: images", lambda: image("siglip", image_mean=[0.5] * 3, image_std=[0.5] * 3))
