"""`image_tower/` and `alt_clip/`: tiny image towers with both activations, and a tiny dual encoder."""

import shutil
from pathlib import Path

import torch
from transformers import AltCLIPConfig, AltCLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from common import normal, randomise, save_tensors

VISION = dict(
    hidden_size=16,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=28,
    patch_size=7,
    projection_dim=12,
)
TEXT = dict(
    vocab_size=120,
    hidden_size=16,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=40,
    type_vocab_size=1,
    project_dim=20,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)


def save(model, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").chmod(0o644)


def input_ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Three texts of 12, 5 and 2 tokens in `<s> … </s> <pad>*`, with their mask."""
    ids = (normal("alt_clip.input_ids", 3, 12).abs() * 40).long() % (TEXT["vocab_size"] - 4) + 4
    ids[:, 0] = 0
    for row, length in enumerate((12, 5, 2)):
        ids[row, length - 1] = 2
        ids[row, length:] = 1
    return ids, (ids != 1).long()


def make(output: Path) -> None:
    # The published sizes: ViT-L/14 has quick_gelu, ViT-H/14 has gelu.
    for activation in ("quick_gelu", "gelu"):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, hidden_act=activation))
        randomise(model, f"image_tower/{activation}")
        folder = output / "image_tower" / activation
        save(model, folder)
        pixels = normal(f"image_tower/{activation}.pixels", 3, 3, 28, 28)
        result = model(pixels)
        print(f"  image_tower/{activation}: embeddings ± {result.image_embeds.std():.2f}")
        save_tensors(
            folder / "golden.safetensors",
            {
                "pixel_values": pixels,
                "image_embeds": result.image_embeds,
                "last_hidden_state": result.last_hidden_state,
            },
        )

    config = AltCLIPConfig(
        text_config=TEXT, vision_config=dict(VISION, hidden_act="quick_gelu"), projection_dim=VISION["projection_dim"]
    )
    model = AltCLIPModel(config)
    randomise(model, "alt_clip")
    model.logit_scale.fill_(2.6592)
    folder = output / "alt_clip"
    save(model, folder)
    ids, mask = input_ids()
    pixels = normal("alt_clip.pixels", 2, 3, 28, 28)
    result = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    print(f"  alt_clip: logits {result.logits_per_image.tolist()}")
    save_tensors(
        folder / "golden.safetensors",
        {
            "input_ids": ids,
            "attention_mask": mask,
            "pixel_values": pixels,
            "text_embeds": result.text_embeds,
            "image_embeds": result.image_embeds,
            "text_features": model.get_text_features(input_ids=ids, attention_mask=mask),
            "image_features": model.get_image_features(pixel_values=pixels),
            "logits_per_image": result.logits_per_image,
        },
    )
