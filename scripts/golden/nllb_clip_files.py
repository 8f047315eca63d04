#!/usr/bin/env python3
"""Write `nllb_clip/`: tiny NLLB-CLIPs in OpenCLIP's layout, with the tokenizer of NLLB, and their outputs.

Usage::

    nllb_clip_files.py --output tests/golden

Runs separately, with torch 2.15.0 and `pip install transformers==4.57.6 sentencepiece protobuf ftfy`, then with `--no-deps`
open_clip_torch 3.3.0, timm 1.0.31 and torchvision. `base/` has CLIP's image tower, `siglip/` the one that timm calls
`vit_base_patch16_siglip_384`. Weights are exact in f16, and saved as such.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import open_clip
import timm
import torch
import transformers
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import image_transform
from PIL import Image
from transformers import M2M100Config, NllbTokenizer, NllbTokenizerFast

from common import normal, randomise, save_json, save_tensors
from dual_encoders import TEXTS, write_cases
from tiny_tokenizers import sentencepiece_model
from tokenizer_cases import PROMPTS

LANGUAGES = ["eng_Latn", "zho_Hans", "deu_Latn", "jpn_Jpan"]
#: Widths of 64 per head, from which the number of heads is told.
WIDTH = 64
#: What texts are padded and cut to, to keep the files small; the models' own limit is 77.
TOKENS = 24
LONG = "Größere Straßenbahn fährt über die Brücke, " * 4
TEXT_CONFIG = {
    "hf_model_name": "facebook/nllb-200-distilled-600M",
    "hf_tokenizer_name": "facebook/nllb-200-distilled-600M",
    "hf_proj_type": "linear",
    "hf_pooler_type": "cls_pooler",
}
MODELS = {
    "base": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 20, "layers": 2, "width": 16, "head_width": 8, "patch_size": 5},
        "text_cfg": TEXT_CONFIG,
    },
    "siglip": {
        "embed_dim": WIDTH,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": 20, "timm_model_name": "vit_base_patch16_siglip_384", "timm_model_pretrained": False,
            "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": TEXT_CONFIG,
    },
}
OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
PREPROCESS = {name: {**colours, "interpolation": "bicubic", "resize_mode": mode}
              for name, colours, mode in (("base", OPENAI, "shortest"), ("siglip", HALF, "squash"))}


def tokenizer(folder: Path) -> None:
    """NLLB's: SentencePiece's BPE, converted by transformers; a language before the text, `</s>` after it."""
    model = sentencepiece_model(
        [*PROMPTS, *TEXTS] * 3, model_type="bpe", vocab_size=400, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        character_coverage=0.99)
    folder.mkdir(parents=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    NllbTokenizerFast(str(folder / "sentencepiece.bpe.model"), additional_special_tokens=LANGUAGES, src_lang="eng_Latn").save_pretrained(folder)


def tiny_image_tower() -> None:
    """Make timm's tower small: open_clip only passes its name."""
    create = timm.create_model

    def small(name, **options):
        return create(name, img_size=20, patch_size=5, embed_dim=WIDTH, depth=2, num_heads=WIDTH // 64, mlp_ratio=1.25, **options)

    open_clip.timm_model.timm.create_model = small


def golden(folder: Path, name: str, model, ids: torch.Tensor) -> None:
    pixels = normal(f"nllb_clip/{name}.pixels", 2, 3, 20, 20)
    text, image = model.encode_text(ids), model.encode_image(pixels)
    mask = (ids != 1).long()
    hidden = model.text.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = model.get_logits(pixels, ids)[0]
    double = [model.double().encode_text(ids), model.encode_image(pixels.double())]
    error = max(((a.double() - b).norm() / b.norm()).item() for a, b in zip((text, image), double))
    print(f"  {name}: logits {[round(x, 2) for x in logits[0].tolist()]}, f32 to f64 {error:.1e}")
    colours = (normal("nllb_clip.image", 30, 44, 3) * 50 + 128).clamp(0, 255).byte()
    transform = image_transform(20, is_train=False, **PREPROCESS[name])
    save_tensors(
        folder / "golden.safetensors",
        {
            "input_ids": ids,
            "attention_mask": mask,
            "hidden_states": hidden.masked_fill(mask[..., None] == 0, 0.0),
            "pixel_values": pixels,
            "text_embeds": text,
            "image_embeds": image,
            "logits_per_image": logits,
            "probabilities": logits.sigmoid() if model.logit_bias is not None else logits.softmax(-1),
            "image": colours,
            "prepared": transform(Image.fromarray(colours.numpy())),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    output = parser.parse_args().output / "nllb_clip"
    if output.exists():
        shutil.rmtree(output)
    transformers.utils.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    tokenizer(output / "base")
    tokens = HFTokenizer(str(output / "base"))
    texts = [*TEXTS, LONG]
    ids = tokens(texts, context_length=TOKENS)
    vocab_size = len(tokens.tokenizer)
    tiny_image_tower()
    for name, config in MODELS.items():
        folder = output / name
        with tempfile.TemporaryDirectory() as text:
            M2M100Config(
                vocab_size=vocab_size, d_model=WIDTH, encoder_layers=2, encoder_attention_heads=1, encoder_ffn_dim=72,
                decoder_layers=1, decoder_ffn_dim=8, decoder_attention_heads=1, activation_function="relu",
                scale_embedding=True, max_position_embeddings=1024,
            ).save_pretrained(text)
            local = json.loads(json.dumps(config))
            local.pop("custom_text", None)
            local["text_cfg"] |= {"hf_model_name": text, "hf_model_pretrained": False}
            model = open_clip.CustomTextCLIP(**local)
        randomise(model, f"nllb_clip/{name}", f16_exact=True)
        special = {"visual.proj": 0.25, "visual.trunk.attn_pool.latent": 1.0, "visual.trunk.pos_embed": 0.6}
        # Embeddings are multiplied by the root of the width.
        special["text.transformer.embed_tokens.weight"] = 0.6 * WIDTH**-0.5
        for weight, scale in special.items():
            parameter = dict(model.named_parameters()).get(weight)
            if parameter is not None:
                parameter.copy_((scale * normal(f"nllb_clip/{name}/{weight}", *parameter.shape)).half())
        model.logit_scale.fill_(4.5)
        if model.logit_bias is not None:
            model.logit_bias.fill_(-12.0)
        save_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": PREPROCESS[name]})
        torch.save({key: tensor.half() for key, tensor in model.state_dict().items()}, folder / "open_clip_pytorch_model.bin")
        golden(folder, name, model.eval(), ids)
    save_json(output / "texts.json", texts)
    slow = NllbTokenizer.from_pretrained(output / "base")
    write_cases(output / "cases.json", tokens.tokenizer, slow, "slow")
    # open_clip's own `language` has no effect on this class, which goes back to `src_lang` at each call.
    tokens.tokenizer.src_lang = "zho_Hans"
    save_tensors(output / "chinese.safetensors", {"input_ids": tokens(texts, context_length=TOKENS)})


if __name__ == "__main__":
    main()
