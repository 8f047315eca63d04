#!/usr/bin/env python3
"""Write `conditioners/huahua.ckpt` and `mindspore/`: checkpoints by MindSpore, and what Wukong-Huahua's text encoder returns.

Usage::

    mindspore_files.py --models MODELS --output tests/golden

Runs separately, with `pip install mindspore==2.10.0 safetensors` in an environment of its own, after `conditioners`. MODELS is
a checkout of https://github.com/mindspore-ai/models; its text encoder computes the states. The other names follow its
`openaimodel.py` and `autoencoder.py`, whose classes name nested lists differently in MindSpore 2.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from safetensors.numpy import load_file, save_file

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def of_norms(name: str, is_norm) -> str:
    if is_norm(name):
        name = name.removesuffix(".weight") + ".gamma" if name.endswith(".weight") else name.removesuffix(".bias") + ".beta"
    return name


def unet_name(name: str) -> str:
    """The name in Wukong-Huahua of a weight in latent diffusion's naming."""
    name = of_norms(name, lambda name: re.search(r"(in_layers\.0|out_layers\.0|\.norm\d?|^out\.0)\.(weight|bias)$", name))
    name = name.replace("in_layers.0.", "in_layers_norm.").replace("out_layers.0.", "out_layers_norm.")
    name = name.replace("in_layers.2.", "in_layers_conv.conv.").replace("out_layers.3.", "out_layers_conv.conv.")
    name = name.replace("skip_connection.", "skip_connection.conv.").replace(".op.", ".op.conv.")
    name = re.sub(r"(output_blocks\.\d+\.\d+\.conv)\.", r"\1.conv.", name)
    return re.sub(r"^(input_blocks\.0\.0|out\.2)\.", r"\1.conv.", name)


def vae_name(name: str) -> str:
    return of_norms(name, lambda name: re.search(r"(norm\d?|norm_out)\.(weight|bias)$", name))


def text_tensors(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CLIP's text tower under Wukong-Huahua's names."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    tensors = {
        "embedding_table": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.gamma": state["final_layer_norm.weight"],
        "ln_final.beta": state["final_layer_norm.bias"],
    }
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))
    for layer in range(layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer_layer.resblocks.{layer}"
        for kind, norm in (("weight", "gamma"), ("bias", "beta")):
            fused = [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{theirs}.attn.attn.in_proj.{kind}"] = np.concatenate(fused)
            tensors[f"{theirs}.attn.attn.out_proj.{kind}"] = state[f"{ours}.self_attn.out_proj.{kind}"]
            tensors[f"{theirs}.c_fc.{kind}"] = state[f"{ours}.mlp.fc1.{kind}"]
            tensors[f"{theirs}.c_proj.{kind}"] = state[f"{ours}.mlp.fc2.{kind}"]
            for number in (1, 2):
                tensors[f"{theirs}.ln_{number}.{norm}"] = state[f"{ours}.layer_norm{number}.{kind}"]
    return tensors


def save(path: Path, tensors: dict[str, np.ndarray], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    parameters = [{"name": name, "data": Tensor(np.array(tensor, order="C"))} for name, tensor in tensors.items()]
    mindspore.save_checkpoint(parameters, str(path), **options)
    path.chmod(0o644)


def check_names(found, cell, what: str) -> None:
    expected = {parameter.name for parameter in cell.get_parameters()}
    assert set(found) == expected, f"{what}: {sorted(set(found) ^ expected)}"
    print(f"  {what}: {len(expected)} names")


def huahua(output: Path, models: Path) -> None:
    sys.path.insert(0, str(models / "research/mm/wukong-huahua"))
    from ldm.modules.encoders.text_encoder import TextEncoder

    folder = output / "conditioners"
    file, golden = load_file(folder / "sd1.safetensors"), load_file(folder / "golden.safetensors")
    parts = {prefix: {name.removeprefix(prefix): tensor for name, tensor in file.items() if name.startswith(prefix)} for prefix in (UNET, VAE)}
    unet = {unet_name(name): tensor for name, tensor in parts[UNET].items()}
    vae = {vae_name(name): tensor for name, tensor in parts[VAE].items() if not name.startswith("encoder.")}
    state = load_file(folder / "huahua/text_encoder/model.safetensors")
    text = text_tensors(state)

    config = json.loads((folder / "huahua/text_encoder/config.json").read_text())
    encoder = TextEncoder(
        context_length=77, vocab_size=config["vocab_size"], output_dim=16, width=config["hidden_size"],
        layers=config["num_hidden_layers"], heads=config["num_attention_heads"])
    check_names(text, encoder, "text encoder")
    mindspore.load_param_into_net(encoder, {name: Parameter(Tensor(tensor)) for name, tensor in text.items()}, strict_load=True)
    states = encoder(Tensor(golden["huahua.input_ids"].astype(np.int32))).asnumpy()
    distance = np.linalg.norm(states - golden["huahua.states"]) / np.linalg.norm(states)
    print(f"  states: {distance:.1e} from transformers'")
    save_file({"states": states}, str(folder / "huahua.safetensors"))
    (folder / "huahua.safetensors").chmod(0o644)
    tensors = {UNET + name: tensor for name, tensor in unet.items()} | {VAE + name: tensor for name, tensor in vae.items()}
    save(folder / "huahua.ckpt", tensors | {TEXT + name: tensor for name, tensor in text.items()})


def kinds(output: Path) -> None:
    numbers = np.random.Generator(np.random.PCG64(1)).standard_normal((3, 2, 4))
    tensors = {kind: numbers.astype(kind) for kind in ("float16", "float32", "float64", "int8", "int32", "int64", "uint8")}
    tensors |= {"bool": numbers > 0, "scalar": np.float32(1.5), "one": np.float32([2.5])}
    save(output / "mindspore/kinds.ckpt", tensors, crc_check=True)
    save_file({name: np.asarray(tensor) for name, tensor in tensors.items()}, str(output / "mindspore/kinds.safetensors"))
    (output / "mindspore/kinds.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="a checkout of mindspore-ai/models")
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    arguments = parser.parse_args()
    mindspore.set_context(device_target="CPU", mode=mindspore.GRAPH_MODE)
    kinds(arguments.output)
    huahua(arguments.output, arguments.models)


if __name__ == "__main__":
    main()
