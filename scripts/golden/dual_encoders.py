"""`dual_encoders/`: a tiny model of every family of dual encoders with its tokenizer, and the reference's outputs.

Each family has a folder in the layout of its published checkpoints, with `golden.safetensors` besides the weights, and the
texts in `texts.json`. `bert_cases.json` and `clip_cases.json` have the ids of unusual texts.
"""

import collections
import copy
import json
import shutil
from pathlib import Path

import regex
import torch
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    BertTokenizerFast,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    CLIPTokenizerFast,
)
from transformers.models.bert.tokenization_bert import BasicTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode, get_pairs

from common import normal, randomise, save_json, save_tensors
from tokenizer_cases import ODD, PROMPTS

#: Characters of the texts that are pieces by themselves.
CHINESE = {letter for text in (*PROMPTS, "一只戴帽子的小狗猫") for letter in text if "\u4e00" <= letter <= "\u9fff"}

#: All sizes differ, so that none can be confused with another.
VISION = dict(
    hidden_size=18,
    intermediate_size=37,
    num_hidden_layers=2,
    num_attention_heads=3,
    image_size=20,
    patch_size=5,
    projection_dim=11,
)
TEXT = dict(hidden_size=20, intermediate_size=41, num_hidden_layers=2, num_attention_heads=4)
XLM_R = dict(
    TEXT,
    vocab_size=97,
    max_position_embeddings=40,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)
TEXTS = ["一只戴帽子的小狗", "a red apple", "猫", "", "Größere Straßenbahn fährt über die Brücke", "two cats, one dog!"]


def save(model, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").chmod(0o644)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def golden(folder: Path, name: str, ids, mask, text, image) -> None:
    """Write the reference's outputs. `text` and `image` are a model and a function of it: the text tower's returns
    embeddings (not normalised) and hidden states, the image tower's embeddings of images (not normalised)."""
    (text_model, encode_text), (image_model, encode_image) = text, image
    pixels = normal(f"{name}.pixels", 2, 3, VISION["image_size"], VISION["image_size"])
    text_embeds, hidden = encode_text(text_model)
    image_embeds = encode_image(image_model, pixels)
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (image_embeds, text_embeds)]
    logits = image_model.logit_scale.exp() * unit[0] @ unit[1].T
    print(f"  {name}: logits {[round(x, 2) for x in logits[0].tolist()]}")
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": pixels,
        "text_embeds": text_embeds,
        "image_embeds": image_embeds,
        # Padded rows are meaningless: each reference computes them differently.
        "hidden_states": hidden.masked_fill(mask[..., None] == 0, 0.0),
        "logits_per_image": logits,
        "probabilities": logits.softmax(-1),
    }
    # The reference's own error in half precision.
    for dtype in (torch.float16, torch.bfloat16):
        half_text = encode_text(copy.deepcopy(text_model).to(dtype))[0]
        half_image = encode_image(copy.deepcopy(image_model).to(dtype), pixels.to(dtype))
        errors = distance(half_text, text_embeds), distance(half_image, image_embeds)
        print(f"    {dtype}: texts {errors[0]:.1e}, pictures {errors[1]:.1e}")
        tensors[f"errors_{str(dtype).removeprefix('torch.')}"] = torch.tensor(errors)
    save_tensors(folder / "golden.safetensors", tensors)


def text_features(ids, mask):
    """For models with both towers in one class: the embeddings and hidden states of texts."""

    def encode(model):
        hidden = model.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return model.get_text_features(input_ids=ids, attention_mask=mask), hidden

    return encode


def image_features(model, pixels):
    return model.get_image_features(pixel_values=pixels)


def image_processor(kind=CLIPImageProcessor):
    side = VISION["image_size"]
    if kind is ChineseCLIPImageProcessor:
        return kind(size={"height": side, "width": side}, crop_size={"height": side, "width": side})
    return kind(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


# --- AltCLIP ---------------------------------------------------------------------------------------------------------


def xlm_r_ids(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of 13, 6 and 2 tokens in `<s> … </s> <pad>*`, with their mask."""
    ids = (normal(f"{name}.input_ids", 3, 13).abs() * 40).long() % (XLM_R["vocab_size"] - 4) + 4
    ids[:, 0] = 0
    for row, length in enumerate((13, 6, 2)):
        ids[row, length - 1] = 2
        ids[row, length:] = 1
    return ids, (ids != 1).long()


def altclip(output: Path) -> None:
    # ViT-L/14 has quick_gelu and a wider text projection; m18's ViT-H/14 has gelu and one width for all.
    for name, activation, project_dim, projection_dim in (
        ("altclip", "quick_gelu", 14, 11),
        ("altclip_m18", "gelu", 20, 20),
    ):
        config = AltCLIPConfig(
            text_config=dict(XLM_R, project_dim=project_dim),
            vision_config=dict(VISION, hidden_act=activation),
            projection_dim=projection_dim,
        )
        model = randomise(AltCLIPModel(config), f"dual_encoders/{name}")
        model.logit_scale.fill_(2.5)
        folder = output / name
        save(model, folder)
        image_processor().save_pretrained(folder)
        ids, mask = xlm_r_ids(name)
        golden(folder, name, ids, mask, (model, text_features(ids, mask)), (model, image_features))


# --- CLIP ------------------------------------------------------------------------------------------------------------


def write_bpe(folder: Path, merges: int = 120) -> None:
    """Write a byte-level BPE in CLIP's form, trained on the prompts: all bytes, all bytes at the end of a word, merges."""
    letters = list(bytes_to_unicode().values())
    words = collections.Counter()
    pattern = regex.compile(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    for prompt in PROMPTS:
        for word in pattern.findall(prompt.lower()):
            encoded = [bytes_to_unicode()[b] for b in word.encode()]
            words[(*encoded[:-1], encoded[-1] + "</w>")] += 1
    learnt = []
    for _ in range(merges):
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in get_pairs(word) if len(word) > 1 else ():
                pairs[pair] += count
        best = max(sorted(pairs), key=pairs.get)
        learnt.append(best)
        merged = collections.Counter()
        for word, count in words.items():
            new, at = [], 0
            while at < len(word):
                if word[at : at + 2] == best:
                    new.append("".join(best))
                    at += 2
                else:
                    new.append(word[at])
                    at += 1
            merged[tuple(new)] += count
        words = merged
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in learnt]
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in learnt)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    save_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": "<|startoftext|>",
            "do_lower_case": True,
            "eos_token": "<|endoftext|>",
            "model_max_length": 30,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": "<|endoftext|>",
        },
    )


def clip(output: Path) -> None:
    folder = output / "clip"
    write_bpe(folder)
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    text_config = dict(
        TEXT,
        vocab_size=len(tokenizer),
        max_position_embeddings=30,
        hidden_act="quick_gelu",
        bos_token_id=0,
        eos_token_id=2,  # as in OpenAI's files, where it means the largest id
        pad_token_id=1,
    )
    config = CLIPConfig(
        text_config=dict(text_config, projection_dim=11), vision_config=VISION, projection_dim=11
    )
    model = randomise(CLIPModel(config), "dual_encoders/clip")
    model.logit_scale.fill_(4.6052)
    save(model, folder)
    image_processor().save_pretrained(folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    ids, mask = tokens.input_ids, tokens.attention_mask
    golden(folder, "clip", ids, mask, (model, text_features(ids, mask)), (model, image_features))
    save_json(folder / "texts.json", TEXTS)
    # The newer form of the config, with the real id, must find the same end tokens.
    legacy = model.get_text_features(input_ids=ids, attention_mask=mask)
    model.text_model.eos_token_id = tokenizer.eos_token_id
    assert torch.equal(legacy, model.get_text_features(input_ids=ids, attention_mask=mask))

    # The tokenizer that CLIPProcessor uses; where OpenAI's own (the slow one with ftfy) differs, its ids are added.
    slow = CLIPTokenizer.from_pretrained(folder)
    assert slow.fix_text is not None, "this needs ftfy: without it the slow tokenizer is not OpenAI's"
    write_cases(output / "clip_cases.json", tokenizer, slow, "slow_with_ftfy")


# --- Chinese-CLIP and Taiyi-CLIP -------------------------------------------------------------------------------------


def write_vocabulary(folder: Path, **config) -> None:
    """Write a WordPiece vocabulary of the prompts' characters and some of their words."""
    basic = BasicTokenizer(do_lower_case=False)
    words = [word for prompt in (*PROMPTS, *TEXTS) for word in basic.tokenize(prompt)]
    words += [word for prompt in PROMPTS for word in BasicTokenizer().tokenize(prompt)]
    letters = sorted({letter for word in words for letter in word})
    frequent = [word for word, _ in collections.Counter(w for w in words if len(w) > 2).most_common(40)]
    tokens = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *frequent, "##ing", "##er", "##s"]
    greek = "αδοσς"  # a small sigma has two forms
    tokens += [*letters, *greek]
    tokens += [f"##{letter}" for letter in (*letters, *greek) if letter.isalnum() and letter not in CHINESE]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    save_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})


def chinese_clip(output: Path) -> None:
    folder = output / "chinese_clip"
    write_vocabulary(folder, do_lower_case=True, model_max_length=32)
    tokenizer = BertTokenizer.from_pretrained(folder)
    config = ChineseCLIPConfig(
        text_config=dict(TEXT, vocab_size=len(tokenizer), max_position_embeddings=32),
        vision_config=VISION,
        projection_dim=11,
    )
    model = randomise(ChineseCLIPModel(config), "dual_encoders/chinese_clip")
    model.logit_scale.fill_(4.6052)
    save(model, folder)
    image_processor(ChineseCLIPImageProcessor).save_pretrained(folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    ids, mask = tokens.input_ids, tokens.attention_mask
    golden(folder, "chinese_clip", ids, mask, (model, text_features(ids, mask)), (model, image_features))
    save_json(folder / "texts.json", TEXTS)
    write_cases(output / "bert_cases.json", tokenizer, BertTokenizerFast.from_pretrained(folder), "fast")
    cased = BertTokenizer.from_pretrained(folder, do_lower_case=False)
    cased_fast = BertTokenizerFast.from_pretrained(folder, do_lower_case=False)
    write_cases(output / "bert_cased_cases.json", cased, cased_fast, "fast")


def taiyi(output: Path) -> None:
    text_folder, image_folder = output / "taiyi/text_encoder", output / "taiyi/image_encoder"
    write_vocabulary(text_folder, do_lower_case=True)
    tokenizer = BertTokenizer.from_pretrained(text_folder)
    text = BertForSequenceClassification(
        BertConfig(**TEXT, vocab_size=len(tokenizer), max_position_embeddings=32, num_labels=11)
    )
    randomise(text, "dual_encoders/taiyi/text")
    save(text, text_folder)
    tiny = dict(vocab_size=9, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1)
    model = CLIPModel(
        CLIPConfig(
            text_config=dict(tiny, bos_token_id=0, eos_token_id=2, max_position_embeddings=5),
            vision_config=VISION,
            projection_dim=11,
        )
    )
    randomise(model, "dual_encoders/taiyi/image")
    model.logit_scale.fill_(4.6052)
    save(model, image_folder)
    image_processor().save_pretrained(image_folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    # The model card passes no mask, so its vectors depend on the lengths of the other texts in the batch.
    ids, mask = tokens.input_ids, tokens.attention_mask

    def encode(text):
        hidden = text.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return text(input_ids=ids, attention_mask=mask).logits, hidden

    golden(output / "taiyi", "taiyi", ids, mask, (text, encode), (model, image_features))
    save_json(output / "taiyi/texts.json", TEXTS)


# --- Tokenizers ------------------------------------------------------------------------------------------------------


def write_cases(path: Path, reference, other, name: str) -> None:
    """Write the ids of unusual texts by `reference`, and by `other` where it differs."""
    greek = ("ΣΑΣ ΟΔΟΣ", "ΟΔΟΣ.", "ΣΑΣ'Α ΑΣ-Α Σ", "ΆΣ ΑΣ\u0301 ΑΣ\u0301Α")
    special = ("[CLS] a [MASK] [SEP]", "[mask]", "<|endoftext|> a", "a<|startoftext|>b", "it's we'll I'D")
    texts = list(dict.fromkeys((*TEXTS, *PROMPTS, *ODD, *greek, *special)))
    texts = [text for text in texts if len(text) < 400]
    cases, differing = [], 0
    for text in texts:
        case = {"text": text, "ids": reference(text).input_ids}
        theirs = other(text).input_ids
        if theirs != case["ids"]:
            differing += 1
            case[name] = theirs
        cases.append(case)
    print(f"  {path.name}: {len(cases)} texts, {differing} where {name} differs")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def make(output: Path) -> None:
    output = output / "dual_encoders"
    if output.exists():
        shutil.rmtree(output)
    altclip(output)
    clip(output)
    chinese_clip(output)
    taiyi(output)
