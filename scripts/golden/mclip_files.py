#!/usr/bin/env python3
"""Write `mclip/`: tiny multilingual text towers that were taught a CLIP's vectors, beside that CLIP, and their outputs.

Usage::

    mclip_files.py --output tests/golden

Runs separately, with torch 2.15.0 and `pip install transformers==4.57.6 sentencepiece protobuf`, then with `--no-deps`
multilingual-clip 1.0.10 and sentence-transformers 5.1.0 (which needs scikit-learn). `xlm_roberta/` has the layout of
M-CLIP's repositories, `distilbert/` that of sentence-transformers' clip-ViT-B-32-multilingual-v1; the CLIP, which both
leave to another repository, is in `image_encoder/`. `sentence_clip/` has that of sentence-transformers' clip-ViT-B-32.
"""

import argparse
import contextlib
import copy
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from multilingual_clip.Config_MCLIP import MCLIPConfig
from multilingual_clip.pt_multilingual_clip import MultilingualCLIP
from sentence_transformers import SentenceTransformer, models
from torch import nn
from transformers import CLIPConfig, CLIPModel, DistilBertConfig, DistilBertModel, XLMRobertaConfig, XLMRobertaModel

from common import normal, randomise, save_json, save_tensors
from dual_encoders import TEXTS, VISION, image_processor, save, write_vocabulary
from open_clip_files import XLM_R, texts

#: The longest text in sentence-transformers' settings, shorter than DistilBERT's positions.
TOKENS = 24


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def image_encoder(folder: Path, name: str) -> CLIPModel:
    """A CLIP whose text tower is not used."""
    tiny = dict(vocab_size=9, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1)
    text = dict(tiny, bos_token_id=0, eos_token_id=2, max_position_embeddings=5)
    model = randomise(CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=11)), f"mclip/{name}/image")
    model.logit_scale.fill_(4.6052)
    save(model, folder)
    image_processor().save_pretrained(folder)
    return model


def golden(folder: Path, name: str, ids, mask, text_model, encode_text, image_model: CLIPModel) -> None:
    """`encode_text` is a function of the text model that returns embeddings and hidden states."""
    pixels = normal(f"mclip/{name}.pixels", 2, 3, VISION["image_size"], VISION["image_size"])
    text, hidden = encode_text(text_model)
    image = image_model.get_image_features(pixel_values=pixels)
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (image, text)]
    logits = image_model.logit_scale.exp() * unit[0] @ unit[1].T
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "hidden_states": hidden.masked_fill(mask[..., None] == 0, 0.0),
        "pixel_values": pixels,
        "text_embeds": text,
        "image_embeds": image,
        "logits_per_image": logits,
        "probabilities": logits.softmax(-1),
    }
    for dtype in (torch.float16, torch.bfloat16):
        half_image = copy.deepcopy(image_model).to(dtype).get_image_features(pixel_values=pixels.to(dtype))
        errors = distance(encode_text(copy.deepcopy(text_model).to(dtype))[0], text), distance(half_image, image)
        tensors[f"errors_{str(dtype).removeprefix('torch.')}"] = torch.tensor(errors)
    error = distance(text, encode_text(copy.deepcopy(text_model).double())[0])
    print(f"  {name}: logits {[round(x, 2) for x in logits[0].tolist()]}, f32 to f64 {error:.1e}")
    save_tensors(folder / "golden.safetensors", tensors)


def xlm_roberta(folder: Path) -> None:
    base = "xlm-roberta-large"
    # The class reads XLM-R's sizes, and weights that it then replaces, from the model of that name.
    with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere):
        XLMRobertaModel(XLMRobertaConfig(**XLM_R)).save_pretrained(base)
        config = MCLIPConfig(modelBase=base, transformerDimSize=XLM_R["hidden_size"], imageDimSize=11)
        model = randomise(MultilingualCLIP(config), "mclip/xlm_roberta")
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    save_json(
        folder / "config.json",
        {
            "architectures": ["MultilingualCLIP"],
            "modelBase": base,
            "model_type": "M-CLIP",
            "numDims": 11,
            "transformerDimensions": XLM_R["hidden_size"],
            "transformers_version": "4.8.1",
        },
    )
    ids = texts("mclip/xlm_roberta")
    mask = (ids != 1).long()

    def encode(model):
        tokens = {"input_ids": ids, "attention_mask": mask}
        return model(None, lambda *_, **__: tokens), model.transformer(**tokens)[0]

    golden(folder, "xlm_roberta", ids, mask, model, encode, image_encoder(folder / "image_encoder", "xlm_roberta"))


def distilbert(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as text:
        write_vocabulary(Path(text), do_lower_case=False, model_max_length=40)
        tokens = len((Path(text) / "vocab.txt").read_text(encoding="utf-8").splitlines())
        shape = dict(dim=20, hidden_dim=41, n_layers=2, n_heads=4, max_position_embeddings=40)
        config = DistilBertConfig(vocab_size=tokens, **shape)
        save(randomise(DistilBertModel(config), "mclip/distilbert"), Path(text))
        # transformers makes this from the vocabulary.
        save_json(Path(text) / "tokenizer_config.json", {
            "do_lower_case": False, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
            "mask_token": "[MASK]", "tokenize_chinese_chars": True, "strip_accents": None, "model_max_length": 40,
            "do_basic_tokenize": True, "never_split": None, "tokenizer_class": "DistilBertTokenizer",
        })
        transformer = models.Transformer(text, max_seq_length=TOKENS)
        dense = randomise(models.Dense(20, 11, bias=False, activation_function=nn.Identity()), "mclip/distilbert/dense")
        model = SentenceTransformer(modules=[transformer, models.Pooling(20), dense], device="cpu")
        model.save(str(folder), create_model_card=False)
        (folder / "vocab.txt").write_bytes((Path(text) / "vocab.txt").read_bytes())
        shutil.copyfile(Path(text) / "tokenizer_config.json", folder / "tokenizer_config.json")
    # The published repository is of an older version: the first module's files are at the root, the last one's a pickle.
    (folder / "2_Dense/model.safetensors").unlink()
    torch.save(dense.state_dict(), folder / "2_Dense/pytorch_model.bin")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    model = SentenceTransformer(str(folder), device="cpu")
    long = "Größere Straßenbahn fährt über die Brücke, " * 3
    tokens = model.tokenize([*TEXTS, long])
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert ids.shape[1] == TOKENS
    whole = model.encode([*TEXTS, long], convert_to_tensor=True)

    def encode(model):
        output = model({"input_ids": ids, "attention_mask": mask})
        return output["sentence_embedding"], output["token_embeddings"]

    assert distance(encode(model)[0], whole) < 1e-6
    golden(folder, "distilbert", ids, mask, model, encode, image_encoder(folder / "image_encoder", "distilbert"))
    save_json(folder / "texts.json", [*TEXTS, long])


def sentence_clip(folder: Path, clip: Path) -> None:
    """The tiny CLIP of `dual_encoders/clip` as a module of sentence-transformers; only what it adds."""
    model = SentenceTransformer(modules=[models.CLIPModel(str(clip))], device="cpu")
    with tempfile.TemporaryDirectory() as whole:
        model.save(whole, create_model_card=False)
        written = sorted(str(path.relative_to(whole)) for path in Path(whole).rglob("*") if path.is_file())
    print(f"  sentence_clip: {' '.join(written)}")
    # As published, by an older version, the module is in a folder of its own.
    save_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}])
    vectors = model.encode(TEXTS, convert_to_tensor=True)
    save_tensors(folder / "golden.safetensors", {"text_embeds": vectors})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    golden_files = parser.parse_args().output.resolve()
    output = golden_files / "mclip"
    if output.exists():
        shutil.rmtree(output)
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.utils.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    xlm_roberta(output / "xlm_roberta")
    distilbert(output / "distilbert")
    sentence_clip(output / "sentence_clip", golden_files / "dual_encoders/clip")


if __name__ == "__main__":
    main()
