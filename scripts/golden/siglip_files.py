#!/usr/bin/env python3
"""Write `siglip/`: tiny SigLIPs with their three kinds of tokenizers in transformers' layout, and their outputs.

Usage::

    siglip_files.py --output tests/golden

Runs separately, with torch 2.15.0 and `pip install transformers==5.24.0 sentencepiece protobuf`: older versions have no
`projection_size`, and no `Siglip2Tokenizer`. `base/` has SigLIP's tokenizer, a SentencePiece model; `multilingual/` is
only a tokenizer, one that falls back to bytes; `siglip2/` has Gemma's, and towers of two widths, as giant models have.
"""

import argparse
import copy
import json
import shutil
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import Siglip2Tokenizer, SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

from common import normal, randomise, save_json, save_tensors
from tiny_tokenizers import byte_pairs, sentencepiece_model
from tokenizer_cases import ODD, PROMPTS

TEXTS = ["一只戴帽子的小狗", "A red Apple", "猫", "", "Größere Straßenbahn fährt über die Brücke!", "two cats, one dog's"]
#: Texts that only these tokenizers treat in a way of their own.
OWN = ("</s> a", "a </s>  b", "a</s>", "</s>", "a <unk> b", "<pad> a", "ΟΔΟΣ ΑΣ", "İ", "<eos>", "a<eos> b", "<BOS>x", "a  b\n\nc", "{}[]")
#: A small sigma has two forms.
GREEK = "οδος σας ας σα ος σο"
LOWER = [text.lower() for text in (*PROMPTS, *TEXTS, GREEK)]
#: Every text is padded to this length, and the padding is seen.
TOKENS = 20
VISION = dict(
    hidden_size=18, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3, image_size=20, patch_size=5)
TEXT = dict(intermediate_size=41, num_hidden_layers=2, max_position_embeddings=TOKENS)


def unigram(path: Path, vocab_size: int, **options) -> None:
    """A model with T5's special tokens: `<pad>` 0, `</s>` 1, `<unk>` 2, no `<s>`."""
    model = sentencepiece_model(
        LOWER * 3, model_type="unigram", vocab_size=vocab_size, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)


def tokenizer_config(folder: Path) -> None:
    """As in the published repositories."""
    added = {"lstrip": True, "normalized": True, "rstrip": True, "single_word": False, "special": True}
    save_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {"1": {"content": "</s>", **added}, "2": {"content": "<unk>", **added}},
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "eos_token": "</s>",
            "model_input_names": ["input_ids"],
            "model_max_length": TOKENS,
            "pad_token": "</s>",
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
            "unk_token": "<unk>",
        },
    )


def gemma(folder: Path) -> None:
    """Gemma's kind of `tokenizer.json`: BPE with bytes for unknown characters, and `<eos>` after a text."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters, merges = byte_pairs(LOWER, 110)
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + letters[:90] + ["".join(pair) for pair in merges]
    # Letters that are left out become bytes; those of merges must be there.
    tokens += [letter for pair in merges for letter in "".join(pair)]
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "▁▁", "<start_of_turn>")])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    decoder = {
        str(id): {
            "content": token.content, "lstrip": token.lstrip, "normalized": token.normalized, "rstrip": token.rstrip,
            "single_word": token.single_word, "special": token.special,
        }
        for id, token in tokenizer.get_added_tokens_decoder().items()
    }
    save_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": True,
            "added_tokens_decoder": decoder,
            "bos_token": "<bos>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<eos>",
            "model_input_names": ["input_ids"],
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": "<pad>",
            "padding_side": "right",
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )


def siglip2_tokenizer(folder: Path) -> Siglip2Tokenizer:
    """transformers' class for SigLIP 2, which lowers the case as in training, with this vocabulary."""
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [tuple(pair) for pair in data["model"]["merges"]]
    tokenizer = Siglip2Tokenizer(vocab=data["model"]["vocab"], merges=merges, padding_side="right")
    tokenizer._tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "▁▁", "<start_of_turn>")])
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return tokenizer


def write_cases(path: Path, tokenizer, as_is=None) -> None:
    """Write the ids of unusual texts, not truncated, with the end token; `as_is` is the same without lowering the case."""
    texts = [text for text in dict.fromkeys((*TEXTS, *OWN, *PROMPTS, *ODD)) if len(text) < 400]
    cases = []
    for text in texts:
        case = {"text": text, "ids": tokenizer(text).input_ids}
        if as_is is not None and (ids := as_is.encode(text).ids) != case["ids"]:
            case["as_is"] = ids
        cases.append(case)
    print(f"  {path.name}: {len(cases)} texts")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def golden(folder: Path, name: str, model: SiglipModel, tokenizer) -> None:
    ids = tokenizer(TEXTS, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids
    pixels = normal(f"siglip/{name}.pixels", 2, 3, VISION["image_size"], VISION["image_size"])
    output = model(input_ids=ids, pixel_values=pixels)
    text = model.text_model(input_ids=ids)
    image = model.vision_model(pixel_values=pixels)
    tensors = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "hidden_states": text.last_hidden_state,
        "pixel_values": pixels,
        "text_embeds": text.pooler_output,
        "image_embeds": image.pooler_output,
        "logits_per_image": output.logits_per_image,
        "probabilities": output.logits_per_image.sigmoid(),
    }
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(model).to(dtype)
        errors = (
            distance(half.text_model(input_ids=ids).pooler_output, text.pooler_output),
            distance(half.vision_model(pixel_values=pixels.to(dtype)).pooler_output, image.pooler_output),
        )
        tensors[f"errors_{str(dtype).removeprefix('torch.')}"] = torch.tensor(errors)
    double = copy.deepcopy(model).double()
    errors = (
        distance(text.pooler_output, double.text_model(input_ids=ids).pooler_output),
        distance(image.pooler_output, double.vision_model(pixel_values=pixels.double()).pooler_output),
    )
    print(f"  {name}: logits {[round(x, 2) for x in output.logits_per_image[0].tolist()]}, f32 to f64 {max(errors):.1e}")
    save_tensors(folder / "golden.safetensors", tensors)
    save_json(folder / "texts.json", TEXTS)


def model(folder: Path, name: str, vocab_size: int, text: dict) -> SiglipModel:
    text_config = dict(TEXT, **text, vocab_size=vocab_size)
    model = randomise(SiglipModel(SiglipConfig(text_config=text_config, vision_config=VISION)), f"siglip/{name}")
    model.vision_model.head.probe.copy_(normal(f"siglip/{name}/probe", *model.vision_model.head.probe.shape))
    model.logit_scale.fill_(3.9)
    model.logit_bias.fill_(-10.5)
    save_tensors(folder / "model.safetensors", model.state_dict(), {"format": "pt"})
    save_json(
        folder / "config.json",
        {
            "architectures": ["SiglipModel"],
            "initializer_factor": 1.0,
            "model_type": "siglip",
            "text_config": {"model_type": "siglip_text_model", **text_config},
            "torch_dtype": "float32",
            "transformers_version": "4.49.0",
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
        },
    )
    return model


def image_processor(folder: Path, resample: int) -> SiglipImageProcessorPil:
    side = VISION["image_size"]
    config = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": resample,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": side, "width": side},
    }
    save_json(folder / "preprocessor_config.json", config)
    return SiglipImageProcessorPil.from_pretrained(folder)


def picture(folder: Path, processor) -> None:
    """A picture, wider than high, and what the processor makes of it."""
    colours = (normal("siglip.image", 30, 44, 3) * 50 + 128).clamp(0, 255).byte()
    prepared = processor(images=colours.numpy(), input_data_format="channels_last", return_tensors="pt").pixel_values[0]
    save_tensors(folder / "image.safetensors", {"image": colours, "prepared": prepared})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    output = parser.parse_args().output / "siglip"
    if output.exists():
        shutil.rmtree(output)
    transformers.utils.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)

    base = output / "base"
    unigram(base / "spiece.model", 300)
    tokenizer_config(base)
    tokenizer = SiglipTokenizer.from_pretrained(base)
    write_cases(output / "base_cases.json", tokenizer)
    golden(base, "base", model(base, "base", tokenizer.vocab_size, dict(hidden_size=18, num_attention_heads=3)), tokenizer)
    picture(base, image_processor(base, 3))

    multilingual = output / "multilingual"
    unigram(multilingual / "spiece.model", 500, byte_fallback=True, character_coverage=0.98)
    tokenizer_config(multilingual)
    write_cases(output / "multilingual_cases.json", SiglipTokenizer.from_pretrained(multilingual))

    siglip2 = output / "siglip2"
    gemma(siglip2)
    tokenizer = siglip2_tokenizer(siglip2)
    write_cases(output / "siglip2_cases.json", tokenizer, Tokenizer.from_file(str(siglip2 / "tokenizer.json")))
    text = dict(hidden_size=20, num_attention_heads=4, projection_size=18)
    golden(siglip2, "siglip2", model(siglip2, "siglip2", len(tokenizer), text), tokenizer)
    picture(siglip2, image_processor(siglip2, 2))


if __name__ == "__main__":
    main()
