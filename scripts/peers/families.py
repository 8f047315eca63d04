"""Makes dual encoders with random weights in their published layouts and sizes, for `scripts/compare-families.py`.

Each function of `FAMILIES` writes a model into a folder and returns a `Reference`, which embeds texts and image files with the
library that the family comes from. Tokenizers are the small ones of `tests/golden`; embeddings have all their rows.
"""

import json
import pickle
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import open_clip
import torch
import transformers
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, models
from torch import nn
from transformers import (
    AltCLIPConfig, AltCLIPModel, BertConfig, BertForSequenceClassification, BertModel, BertTokenizer, ChineseCLIPConfig,
    ChineseCLIPModel, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast, CLIPVisionConfig, DistilBertConfig,
    DistilBertModel, M2M100Config, PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTokenizer,
    XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer,
)
from transformers.models.clip.modeling_clip import CLIPVisionTransformer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
sys.path.insert(0, str(ROOT / "scripts/golden"))
from common import randomise  # noqa: E402

#: Each library's batch of images when there are many.
IMAGES_AT_A_TIME = 16
XLM_R = dict(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


@dataclass
class Reference:
    """A library's model: `texts` and `prepared` images to vectors, and how an image is prepared."""

    library: str
    texts: Callable[[list[str]], torch.Tensor]
    prepared: Callable[[torch.Tensor], torch.Tensor]
    prepare: Callable[[list[Image.Image]], torch.Tensor]

    def images(self, paths: list[str]) -> torch.Tensor:
        batches = [paths[first : first + IMAGES_AT_A_TIME] for first in range(0, len(paths), IMAGES_AT_A_TIME)]
        return torch.cat([self.prepared(self.prepare([Image.open(path) for path in batch])) for batch in batches])


class Sizes:
    """The sizes of the published models, or with `tiny` ones for trying this out; heads have 64 channels in both."""

    def __init__(self, tiny: bool):
        self.tiny = tiny

    def layers(self, width: int, count: int) -> dict[str, int]:
        width, count = (64, 2) if self.tiny else (width, count)
        return dict(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=count, num_attention_heads=width // 64)

    def open_clip(self, width: int, count: int) -> dict[str, int]:
        layers = self.layers(width, count)
        return {"width": layers["hidden_size"], "layers": layers["num_hidden_layers"]}

    def width(self, width: int) -> int:
        return 64 if self.tiny else width


def copy_tokenizer(folder: Path, golden: str, *files: str, **config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(GOLDEN / golden / file, folder / file)
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


def xlm_r_tokenizer(folder: Path) -> XLMRobertaTokenizer:
    copy_tokenizer(folder, "tokenizer", "sentencepiece.bpe.model", model_max_length=77)
    return XLMRobertaTokenizer.from_pretrained(folder)


def bert_tokenizer(folder: Path, length: int) -> BertTokenizer:
    copy_tokenizer(folder, "dual_encoders/chinese_clip", "vocab.txt", model_max_length=length)
    return BertTokenizer.from_pretrained(folder)


def tokens_of(tokenizer, length: int, padding: str = "longest", lower: bool = False):
    """Tokens as the model's own example pads them."""

    def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
        texts = [text.lower() for text in texts] if lower else texts
        found = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        # SigLIP's tokenizers give no mask.
        return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}

    return tokens


def prepare_by(processor):
    return lambda images: processor(images, return_tensors="pt").pixel_values


def prepare_as_open_clip(side: int = 224):
    transform = image_transform(side, is_train=False, **OPENAI)
    return lambda images: torch.stack([transform(image) for image in images])


def of_transformers(folder: Path, name: str, model, tokens, processor, reads_mask: bool = True) -> Reference:
    """A model of transformers that is one folder."""
    randomise(model, name).save_pretrained(folder, max_shard_size="2GB")
    processor.save_pretrained(folder)

    def texts(texts: list[str]) -> torch.Tensor:
        given = tokens(texts)
        return model.get_text_features(**given) if reads_mask else model.get_text_features(given["input_ids"])

    return Reference("transformers", texts, model.get_image_features, prepare_by(processor))


def altclip(folder: Path, sizes: Sizes) -> Reference:
    width = sizes.width(768)
    config = AltCLIPConfig(
        text_config=dict(XLM_R, project_dim=width, **sizes.layers(1024, 24)),
        vision_config=dict(patch_size=14, **sizes.layers(1024, 24)), projection_dim=width)
    tokens = tokens_of(xlm_r_tokenizer(folder), 77)
    return of_transformers(folder, "altclip", AltCLIPModel(config), tokens, CLIPImageProcessor())


def clip(folder: Path, sizes: Sizes) -> Reference:
    copy_tokenizer(folder, "dual_encoders/clip", "vocab.json", "merges.txt", model_max_length=77)
    config = CLIPConfig(
        text_config=dict(eos_token_id=2, **sizes.layers(512, 12)), vision_config=sizes.layers(768, 12), projection_dim=512)
    tokens = tokens_of(CLIPTokenizerFast.from_pretrained(folder), 77)
    return of_transformers(folder, "clip", CLIPModel(config), tokens, CLIPImageProcessor())


def chinese_clip(folder: Path, sizes: Sizes) -> Reference:
    config = ChineseCLIPConfig(
        text_config=dict(vocab_size=21128, **sizes.layers(768, 12)),
        vision_config=dict(patch_size=16, **sizes.layers(768, 12)), projection_dim=512)
    tokens, model = tokens_of(bert_tokenizer(folder, 77), 77), ChineseCLIPModel(config)
    found = of_transformers(folder, "chinese-clip", model, tokens, CLIPImageProcessor())
    # `get_text_features` of this version asks for BERT's pooler, which the model does not have.
    found.texts = lambda texts: model.text_projection(model.text_model(**tokens(texts)).last_hidden_state[:, 0])
    return found


def siglip_model(folder: Path, sizes: Sizes, vocab_size: int, tokens) -> Reference:
    layers = sizes.layers(768, 12)
    text = dict(layers, vocab_size=vocab_size, max_position_embeddings=64, projection_size=layers["hidden_size"])
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=layers))
    return of_transformers(folder, f"siglip-{vocab_size}", model, tokens, SiglipImageProcessor(), reads_mask=False)


def siglip(folder: Path, sizes: Sizes) -> Reference:
    copy_tokenizer(folder, "siglip/base", "spiece.model", "tokenizer_config.json")
    tokens = tokens_of(SiglipTokenizer.from_pretrained(folder), 64, "max_length")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return siglip_model(folder, sizes, 32000, tokens)


def siglip2(folder: Path, sizes: Sizes) -> Reference:
    copy_tokenizer(folder, "siglip/siglip2", "tokenizer.json", "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>")
    return siglip_model(folder, sizes, 256000, tokens_of(tokenizer, 64, "max_length", lower=True))


def of_open_clip(folder: Path, name: str, config: dict, tokens, special: float, hf_config=None) -> Reference:
    """A model in OpenCLIP's layout; `hf_config` is that of a text tower of transformers."""
    local = json.loads(json.dumps(config))
    if hf_config is None:
        model = open_clip.CLIP(**local)
    else:
        hf_config.save_pretrained(folder / "hf")
        local["text_cfg"] |= {"hf_model_name": str(folder / "hf"), "hf_model_pretrained": False}
        model = open_clip.CustomTextCLIP(**local)
        shutil.rmtree(folder / "hf")
    randomise(model, name)
    for weight, parameter in model.named_parameters():
        # Embeddings are no matrices, and these projections are stored transposed.
        if weight.endswith(("embedding", "token_embedding.weight", "embed_tokens.weight")):
            parameter.normal_(std=special, generator=torch.Generator().manual_seed(0))
        if weight.endswith(("visual.proj", "text_projection")):
            parameter.normal_(std=parameter.shape[0] ** -0.5, generator=torch.Generator().manual_seed(1))
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    written = {"model_cfg": config, "preprocess_cfg": OPENAI}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    model.eval()
    return Reference("open_clip", lambda texts: model.encode_text(tokens(texts)), model.encode_image, prepare_as_open_clip())


def open_clip_own(folder: Path, sizes: Sizes) -> Reference:
    copy_tokenizer(folder, "open_clip_own/base", "vocab.json", "merges.txt", model_max_length=77)
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    layers = sizes.layers(512, 12)
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "patch_size": 32, "head_width": 64, **sizes.open_clip(768, 12)},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "heads": layers["num_attention_heads"], **sizes.open_clip(512, 12)},
    }
    tokens = tokens_of(tokenizer, 77, "max_length")
    return of_open_clip(folder, "open-clip", config, lambda texts: tokens(texts)["input_ids"], 0.6)


def open_clip_xlm_r(folder: Path, sizes: Sizes) -> Reference:
    tokens = tokens_of(xlm_r_tokenizer(folder), 77, "max_length")
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "patch_size": 32, "head_width": 64, **sizes.open_clip(768, 12)},
        "text_cfg": {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base", "hf_pooler_type": "mean_pooler"},
    }
    hf_config = XLMRobertaConfig(**XLM_R, bos_token_id=0, eos_token_id=2, **sizes.layers(768, 12))
    return of_open_clip(folder, "open-clip-xlm-r", config, lambda texts: tokens(texts)["input_ids"], 0.6, hf_config)


def nllb_clip(folder: Path, sizes: Sizes) -> Reference:
    copy_tokenizer(
        folder, "nllb_clip/base", "sentencepiece.bpe.model", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json")
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "patch_size": 32, "head_width": 64, **sizes.open_clip(768, 12)},
        "text_cfg": {
            "hf_model_name": "facebook/nllb-200-distilled-600M", "hf_tokenizer_name": "facebook/nllb-200-distilled-600M",
            "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler",
        },
    }
    layers = sizes.layers(1024, 12)
    hf_config = M2M100Config(
        vocab_size=256206, d_model=layers["hidden_size"], encoder_layers=layers["num_hidden_layers"],
        encoder_attention_heads=layers["num_attention_heads"], encoder_ffn_dim=layers["intermediate_size"], decoder_layers=1,
        decoder_ffn_dim=8, decoder_attention_heads=1, activation_function="relu", scale_embedding=True,
        max_position_embeddings=1024)
    tokenizer = HFTokenizer(str(folder))
    # Embeddings are multiplied by the root of the width.
    special = 0.6 * layers["hidden_size"] ** -0.5
    return of_open_clip(folder, "nllb-clip", config, lambda texts: tokenizer(texts, context_length=77), special, hf_config)


def image_encoder(folder: Path, name: str, width: int, layers: dict[str, int], patch_size: int) -> tuple[CLIPModel, CLIPImageProcessor]:
    """The CLIP of a text tower that is published alone; its own text tower is small, since nothing reads it."""
    text = dict(vocab_size=9, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, eos_token_id=2)
    vision = dict(layers, patch_size=patch_size)
    model = randomise(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)), f"{name}/image")
    processor = CLIPImageProcessor()
    for part in (model, processor):
        part.save_pretrained(folder / "image_encoder")
    return model, processor


def m_clip(folder: Path, sizes: Sizes) -> Reference:
    """As `multilingual_clip` computes it, whose class reads XLM-R from the hub."""
    tokens = tokens_of(xlm_r_tokenizer(folder), 77)
    config = XLMRobertaConfig(**XLM_R, **sizes.layers(1024, 24))
    width = sizes.width(768)
    model = nn.ModuleDict({
        "transformer": XLMRobertaModel(config),
        "LinearTransformation": nn.Linear(config.hidden_size, width),
    })
    randomise(model, "m-clip")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    written = {"model_type": "M-CLIP", "modelBase": "xlm-roberta-large", "numDims": width, "transformerDimensions": config.hidden_size}
    (folder / "config.json").write_text(json.dumps(written))
    images, processor = image_encoder(folder, "m-clip", width, sizes.layers(1024, 24), 14)

    def texts(texts: list[str]) -> torch.Tensor:
        given = tokens(texts)
        mask = given["attention_mask"][..., None]
        states = model["transformer"](**given)[0]
        return model["LinearTransformation"]((states * mask).sum(1) / mask.sum(1))

    return Reference("transformers", texts, images.get_image_features, prepare_by(processor))


def distilbert_clip(folder: Path, sizes: Sizes) -> Reference:
    inner, layers = folder / "inner", sizes.layers(768, 6)
    copy_tokenizer(inner, "mclip/distilbert", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    config = DistilBertConfig(
        vocab_size=119547, dim=layers["hidden_size"], hidden_dim=layers["intermediate_size"],
        n_layers=layers["num_hidden_layers"], n_heads=layers["num_attention_heads"])
    randomise(DistilBertModel(config), "distilbert").save_pretrained(inner)
    dense = models.Dense(layers["hidden_size"], 512, bias=False, activation_function=nn.Identity())
    randomise(dense, "distilbert/dense")
    modules = [models.Transformer(str(inner), max_seq_length=77), models.Pooling(layers["hidden_size"]), dense]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(folder), create_model_card=False)
    shutil.copy(inner / "vocab.txt", folder)
    shutil.rmtree(inner)
    images, processor = image_encoder(folder, "distilbert", 512, sizes.layers(768, 12), 32)
    texts = lambda texts: model.encode(texts, convert_to_tensor=True, batch_size=32, show_progress_bar=False)
    return Reference("sentence-transformers", texts, images.get_image_features, prepare_by(processor))


def taiyi_clip(folder: Path, sizes: Sizes) -> Reference:
    tokens = tokens_of(bert_tokenizer(folder / "text_encoder", 77), 77)
    text = BertForSequenceClassification(BertConfig(vocab_size=21128, num_labels=512, **sizes.layers(768, 12)))
    randomise(text, "taiyi").save_pretrained(folder / "text_encoder")
    images, processor = image_encoder(folder, "taiyi", 512, sizes.layers(768, 12), 32)
    return Reference(
        "transformers", lambda texts: text(**tokens(texts)).logits, images.get_image_features, prepare_by(processor))


def prd2(folder: Path, sizes: Sizes) -> Reference:
    """The towers of R2D2 and PRD2, of transformers' parts as their authors' code puts them together."""
    tokens = tokens_of(bert_tokenizer(folder, 64), 64)
    vision = CLIPVisionConfig(patch_size=14, **sizes.layers(1024, 24))
    vision._attn_implementation = "sdpa"  # only whole models choose by themselves
    text = BertConfig(vocab_size=21128, **sizes.layers(768, 12))
    dim = sizes.width(768)
    model = nn.ModuleDict({
        "visual_encoder": CLIPVisionTransformer(vision),
        "text_encoder": BertModel(text),
        "vision_proj": nn.Linear(vision.hidden_size, dim),
        "text_proj": nn.Linear(text.hidden_size, dim),
    })
    randomise(model, "prd2")
    state = model.state_dict() | {"temp": torch.tensor(0.07)}
    torch.save({"model": state}, folder / "prd2_pretrain_250m.pth")
    first = lambda states: states[:, 0]
    images = lambda pixels: model["vision_proj"](first(model["visual_encoder"](pixels).last_hidden_state))
    texts = lambda texts: model["text_proj"](first(model["text_encoder"](**tokens(texts)).last_hidden_state))
    return Reference("transformers", texts, images, prepare_as_open_clip())


def wukong(folder: Path, sizes: Sizes) -> Reference:
    """Wukong's CLIP form, with open_clip's modules: MindSpore's layer norms have another epsilon."""
    width = sizes.width(768)
    layers = sizes.layers(768, 12)
    config = {
        "embed_dim": width, "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "patch_size": 14, "head_width": 64, **sizes.open_clip(1024, 24)},
        "text_cfg": {"context_length": 32, "vocab_size": 21128, "heads": layers["num_attention_heads"], **sizes.open_clip(768, 12)},
    }
    model = randomise(open_clip.CLIP(**config), "wukong")
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-7
    own = ("token_embedding", "positional_embedding", "ln_final", "text_projection")
    names = lambda name: f"transformer.{name}" if name.startswith(own) else name.replace("logit_scale", "loss.logit_scale")
    state = {names(name): tensor.numpy() for name, tensor in model.state_dict().items()}
    (folder / "wukong_vit_l_14.pkl").write_bytes(pickle.dumps(state, protocol=4))
    copy_tokenizer(folder, "wukong/clip", "vocab_zh.txt")
    shutil.copy(folder / "vocab_zh.txt", folder / "inner.txt")
    tokens = tokens_of(BertTokenizer(str(folder / "inner.txt"), do_lower_case=True), 32, "max_length")
    (folder / "inner.txt").unlink()

    def texts(texts: list[str]) -> torch.Tensor:
        given = tokens(texts)
        states = model.token_embedding(given["input_ids"]) + model.positional_embedding
        states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask))
        ends = given["attention_mask"].sum(1) - 1
        return states[torch.arange(len(texts)), ends] @ model.text_projection

    return Reference("open_clip", texts, model.encode_image, prepare_as_open_clip())


FAMILIES = {
    "AltCLIP": altclip,
    "CLIP ViT-B/32": clip,
    "SigLIP base": siglip,
    "SigLIP 2 base": siglip2,
    "OpenCLIP ViT-B-32": open_clip_own,
    "OpenCLIP xlm-roberta-base-ViT-B-32": open_clip_xlm_r,
    "NLLB-CLIP base": nllb_clip,
    "M-CLIP XLM-R large, ViT-L/14": m_clip,
    "sentence-transformers' multilingual CLIP": distilbert_clip,
    "Chinese-CLIP base": chinese_clip,
    "Taiyi-CLIP 102M": taiyi_clip,
    "PRD2 250M": prd2,
    "Wukong ViT-L/14": wukong,
}
VERSIONS = (torch, transformers, open_clip)
