"""`text_encoder.safetensors`: the hidden states of both forms of the text encoder, with and without the padding mask."""

from pathlib import Path

import torch
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation
from transformers import XLMRobertaTokenizer

from common import PROMPT_TOKENS, save_tensors

PROMPTS = (
    "",
    "一只猫",
    "a picture of a small dog wearing a red hat",
    "Дві кішки п'ють чай, قطة صغيرة, 달빛 고양이, ภาพแมว, चाँदनी रात",
    "cat and dog, " * 40,
)


def make(output: Path) -> None:
    tokenizer = XLMRobertaTokenizer.from_pretrained(output / "alt_diffusion", subfolder="tokenizer")
    encoded = tokenizer(
        list(PROMPTS), padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
    )
    tensors = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        model = RobertaSeriesModelWithTransformation.from_pretrained(output / repository, subfolder="text_encoder").eval()
        for name, mask in (("mask", encoded.attention_mask), ("no_mask", None)):
            states = model(encoded.input_ids, attention_mask=mask).projection_state
            reference = model.double()(encoded.input_ids, attention_mask=mask).projection_state
            model.float()
            error = ((states - reference).norm() / reference.norm()).item()
            print(f"  {repository}.{name}: f32 is within {error:.1e} of f64, standard deviation {states.std():.2f}")
            tensors[f"{repository}.{name}"] = states
        with_mask, without = (tensors[f"{repository}.{name}"] for name in ("mask", "no_mask"))
        print(f"  {repository}: the mask changes {((with_mask - without).norm() / without.norm()).item():.2f} of the states")
        assert torch.equal(with_mask[-1], without[-1]), "a prompt without padding has no masked key"
    save_tensors(output / "text_encoder.safetensors", tensors)
