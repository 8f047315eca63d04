#!/usr/bin/env python3
"""Writes the text tower of an AltCLIP as a model of sentence-transformers, for servers that know XLM-R but not AltCLIP.

    pip install 'sentence-transformers<4' 'transformers<4.49' sentencepiece protobuf
    text_tower.py ALTCLIP DIR

XLM-R, the row of its first token, and AltCLIP's normalization and projections, so its vectors are those of AltCLIP.
"""

import sys
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer, models
from transformers import AltCLIPModel, XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

#: What AltCLIP was trained on, and other programs cut texts to.
TOKENS = 77


def dense(linear: torch.nn.Linear) -> models.Dense:
    found = models.Dense(linear.in_features, linear.out_features, linear.bias is not None, torch.nn.Identity())
    found.linear.load_state_dict(linear.state_dict())
    return found


def main() -> None:
    altclip, folder = map(Path, sys.argv[1:])
    if folder.exists():
        sys.exit(f"{folder} exists: expected a directory to write")
    model = AltCLIPModel.from_pretrained(altclip, torch_dtype=torch.float32)
    text = model.text_model
    # The classes share the layers and their names, but not the fields of AltCLIP's projection.
    config = {name: value for name, value in text.config.to_dict().items() if name not in ("model_type", "project_dim", "pooler_fn")}
    xlm_r = XLMRobertaModel(XLMRobertaConfig(**config), add_pooling_layer=False)
    xlm_r.load_state_dict(text.roberta.state_dict())
    with tempfile.TemporaryDirectory(dir=folder.parent) as inner:
        xlm_r.save_pretrained(inner)
        XLMRobertaTokenizerFast.from_pretrained(altclip, model_max_length=TOKENS).save_pretrained(inner)
        first = models.Transformer(inner, max_seq_length=TOKENS)
    width = text.config.hidden_size
    norm = models.LayerNorm(width)
    norm.norm.load_state_dict(text.pre_LN.state_dict())
    parts = [first, models.Pooling(width, "cls"), norm, dense(text.transformation), dense(model.text_projection)]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder))


if __name__ == "__main__":
    main()
