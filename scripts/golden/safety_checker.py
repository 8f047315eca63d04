"""`safety_checker/`: a small `StableDiffusionSafetyChecker`, images, and which of them it flags."""

from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from common import normal, randomise, save_tensors

PICTURES, CONCEPTS, CARE = 12, 5, 3


def make(output: Path) -> None:
    folder = output / "safety_checker"
    vision = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8
    )
    checker = randomise(StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=12)), "safety")
    # transformers sets the sizes of the lists in the class.
    names = ("concept_embeds", "special_care_embeds", "concept_embeds_weights", "special_care_embeds_weights")
    for name, count in zip(names, (CONCEPTS, CARE) * 2):
        shape = (count,) if name.endswith("weights") else (count, 12)
        setattr(checker, name, torch.nn.Parameter(normal(f"safety.{name}", *shape), requires_grad=False))
    processor = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})

    generator = np.random.default_rng(7)
    # Blocks of colour: images of noise would look the same after resizing.
    blocks = generator.integers(0, 256, (PICTURES, 4, 5, 3), dtype=np.uint8)
    pictures = blocks.repeat(8, axis=1).repeat(8, axis=2)
    inputs = processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt").pixel_values
    embeds = checker.visual_projection(checker.vision_model(inputs)[1])
    near, care = cosine_distance(embeds, checker.concept_embeds), cosine_distance(embeds, checker.special_care_embeds)
    # A third of the images exceed each threshold, so that concepts and special care occur in every combination.
    checker.concept_embeds_weights.copy_(near.quantile(0.9, dim=0) + 0.003)
    checker.special_care_embeds_weights.copy_(care.quantile(0.75, dim=0))
    _, flagged = checker(inputs, torch.zeros(PICTURES, 3, 8, 8))

    near = near - checker.concept_embeds_weights
    careful = (care > checker.special_care_embeds_weights).any(dim=1)
    plain, adjusted = (near > 0.0005).any(dim=1), (near + 0.01 > 0.0005).any(dim=1)
    assert [bool(value) for value in torch.where(careful, adjusted, plain)] == flagged
    only_with_care = (careful & adjusted & ~plain).sum().item()
    distance = torch.where(careful[:, None], near + 0.01, near).sub(0.0005).abs().min().item()
    print(f"  {sum(flagged)} of {PICTURES} flagged, {only_with_care} only with care; the nearest by {distance:.1e}")
    assert 0 < sum(flagged) < PICTURES and only_with_care and distance > 1e-4

    checker.save_pretrained(folder / "safety_checker")
    (folder / "safety_checker/model.safetensors").chmod(0o644)
    processor.save_pretrained(folder / "feature_extractor")
    save_tensors(
        folder / "golden.safetensors",
        {"pictures": torch.from_numpy(pictures), "flagged": torch.tensor(flagged).to(torch.uint8)},
    )
