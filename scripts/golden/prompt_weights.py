"""`prompt_weights.json` and `prompt_weights.safetensors`: weighted and long prompts, by an independent implementation."""

import re
from pathlib import Path

import torch

from common import PROMPT_TOKENS, normal, save_json, save_tensors
from pipeline import load

#: Only parsed. None has BREAK within brackets, where the original uses BREAK's weight for a word.
PARSED = (
    "",
    "a cat",
    "a (red) cat",
    "a ((red)) [small] cat",
    "a (red:1.3) cat, [[blue:2]] sky",
    "(a [b:1.5] c:0.5)",
    "(a (b:1.2) c:1.3) d",
    "unclosed (a [b",
    "closed a) b] c:1.3)",
    r"escaped \(a:1.3\) \[b\] \\ \x (c\):2)",
    "(spaces: 1.5 ) (sign:+1.5) (minus:-0.5) (none:) (half:.5)",
    "at 10:30 (at 10:30)",
    "[a:b:0.5]",
    "a BREAK b  BREAK   c",
    "BREAK a BREAKFAST, BREAK",
    "一只(红色:1.3)的[大]猫",
    "(((深))) (a)(b)(a:1.1)",
)

LONG = ", ".join(f"{colour} {thing}" for colour in ("red", "синий", "绿色", "gelb") for thing in ("cat", "дом", "苹果", "Baum", "sun"))
#: Encoded. All have brackets or more than one window.
ENCODED = (
    "a (red:1.5) cat",
    "一只((红色))的[大]狗, (dark:0.3) night",
    f"({LONG}:1.2), [{LONG}]",
    "a cat BREAK (a dog:1.4)",
    "(nothing:0) but a tree",
    f"{LONG}, {LONG}, {LONG}",
)


def parse(prompt: str) -> list:
    """[text, weight] of every part, and None for BREAK."""
    tokens = re.findall(r"\\[\\()\[\]]|\\|:\s*[+-]?[.\d]+\s*\)|[()\[\]:]|[^\\()\[\]:]+", prompt)
    weights, texts = [], []
    opened = {"(": [], "[": []}

    def scale(start: int, factor: float) -> None:
        for index in range(start, len(weights)):
            weights[index] *= factor

    for token in tokens:
        number = re.fullmatch(r":\s*([+-]?[.\d]+)\s*\)", token)
        if token in opened:
            opened[token].append(len(texts))
        elif number and opened["("]:
            scale(opened["("].pop(), float(number[1]))
        elif token == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif token == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        else:
            pieces = [token[1:]] if token[0] == "\\" else re.split(r"\s*\bBREAK\b\s*", token)
            for index, piece in enumerate(pieces):
                if index:
                    texts.append(None)
                    weights.append(1.0)
                if piece:
                    texts.append(piece)
                    weights.append(1.0)
    for start in opened["("]:
        scale(start, 1.1)
    for start in opened["["]:
        scale(start, 1 / 1.1)
    parts = []
    for text, weight in zip(texts, weights):
        if text is None:
            parts.append(None)
        elif parts and parts[-1] is not None and parts[-1][1] == weight:
            parts[-1][0] += text
        else:
            parts.append([text, weight])
    return parts


def encode(pipeline, prompt: str, length: int) -> torch.Tensor:
    """The hidden states of a prompt, (1, windows × length, width)."""
    tokenizer, windows = pipeline.tokenizer, [[]]
    for part in parse(prompt):
        if part is None:
            windows.append([])
            continue
        for token in tokenizer(part[0], add_special_tokens=False).input_ids:
            if len(windows[-1]) == length - 2:
                windows.append([])
            windows[-1].append((token, part[1]))
    states = []
    for window in windows:
        padding = length - 2 - len(window)
        ids = [tokenizer.bos_token_id, *(token for token, _ in window), tokenizer.eos_token_id]
        weights = torch.tensor([1.0, *(weight for _, weight in window), 1.0] + [1.0] * padding)
        mask = torch.tensor([[1] * len(ids) + [0] * padding])
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * padding])
        # Like the pipeline, which passes the mask only if the configuration says so.
        mask = mask if getattr(pipeline.text_encoder.config, "use_attention_mask", None) else None
        plain = pipeline.text_encoder(ids, attention_mask=mask)[0]
        weighted = plain * weights[None, :, None]
        if (weights != 1).any():
            weighted = weighted * (plain.mean() / weighted.mean())
        states.append(weighted)
    return torch.cat(states, dim=1)


def make(output: Path) -> None:
    tensors = {}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        pipeline = load(output / repository, {})
        for index, prompt in enumerate(ENCODED):
            states = encode(pipeline, prompt, PROMPT_TOKENS)
            # The scale that restores a mean near 0 has few significant digits.
            assert states.mean().abs() > 0.01 * states.abs().mean(), prompt
            tensors[f"{repository}.{index}"] = states[0]
            print(f"  {repository} {index}: {states.shape[1] // PROMPT_TOKENS} windows, mean {states.mean():.4f}")
        # The empty text counts once, however often it is repeated.
        length = pipeline.tokenizer.model_max_length
        prompt, empty = encode(pipeline, ENCODED[2], length), encode(pipeline, "", length)
        initial = normal(f"{repository}.weighted", 1, 4, 4, 4)
        latents = pipeline(
            prompt_embeds=prompt,
            negative_prompt_embeds=empty.repeat(1, prompt.shape[1] // length, 1),
            latents=initial.clone(),
            guidance_scale=2.5,
            num_inference_steps=4,
            height=32,
            width=32,
            output_type="latent",
        ).images
        tensors[f"{repository}.initial_latents"] = initial
        tensors[f"{repository}.latents"] = latents
    parsed = [{"prompt": prompt, "parts": parse(prompt)} for prompt in PARSED + ENCODED]
    save_json(output / "prompt_weights.json", {"parsed": parsed, "encoded": ENCODED, "drawn": ENCODED[2]})
    save_tensors(output / "prompt_weights.safetensors", tensors)
