"""`conditioners/`: tiny models of the families of text encoders besides XLM-R, and what diffusers makes of them.

`sd1`, `sd2` and `taiyi` are whole models in the published layout (CLIP with quick GELU and epsilon prediction; CLIP with
GELU, another padding token and v-prediction; BERT). `pai` is a text encoder and its tokenizer (CLIP's tower after a
WordPiece vocabulary), and `huahua` such an encoder alone. `golden.safetensors` has hidden states and images, `sd1.safetensors` and `sd2.safetensors` the models
in one file in latent diffusion's naming, `*_lora.safetensors` LoRAs for text encoders, and `words.safetensors` learned words.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPTokenizerFast

from common import PROMPT_TOKENS, draw_in_f32, normal, randomise, save_json, save_tensors
from dual_encoders import write_bpe, write_vocabulary
from single_file import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX, ldm_shape, unet_to_ldm, vae_to_ldm
from tokenizer_cases import ODD, PROMPTS

TEXTS = (
    "",
    "一只戴帽子的小狗, 油画!",
    "a picture of a small dog wearing a red hat! !",
    "Größere Straßenbahn fährt über die Brücke; Дві кішки п'ють чай",
    "cat and dog, " * 40,
)
WORD = "<红帽子>"
WORD_TEXTS = ("", f"a picture of {WORD}, {WORD}dog")

TEXT = dict(num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=PROMPT_TOKENS)
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

PICTURE = dict(
    prompt="一只戴帽子的小狗, a small dog!",
    negative_prompt="模糊, blurry",
    guidance_scale=3.0,
    num_inference_steps=4,
    num_images_per_prompt=2,
    height=16,
    width=24,
)


def clip_tokenizer(folder: Path, pad_token: str) -> None:
    """The small files as published for Stable Diffusion: the second file overrides the first one's padding token."""
    write_bpe(folder)

    def special(text: str) -> dict:
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    bos, eos = special("<|startoftext|>"), special("<|endoftext|>")
    save_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": {"__type": "AddedToken", **bos},
            "do_lower_case": True,
            "eos_token": {"__type": "AddedToken", **eos},
            "errors": "replace",
            "model_max_length": PROMPT_TOKENS,
            "name_or_path": "openai/clip-vit-large-patch14",
            "pad_token": "<|endoftext|>",
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": {"__type": "AddedToken", **eos},
        },
    )
    tokens = {"bos_token": bos, "eos_token": eos, "pad_token": pad_token, "unk_token": eos}
    save_json(folder / "special_tokens_map.json", tokens)


def clip(name: str, vocabulary: int, **config) -> CLIPTextModel:
    # The ids of a published configuration, which the tokenizer's files contradict.
    ids = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1, projection_dim=24)
    config = CLIPTextConfig(**TEXT, **ids, **({"intermediate_size": 37} | config), vocab_size=vocabulary)
    return randomise(CLIPTextModel(config), f"conditioners/{name}")


def bert(name: str, vocabulary: int, **config) -> BertModel:
    return randomise(BertModel(BertConfig(**TEXT, **config, intermediate_size=37, vocab_size=vocabulary)), f"conditioners/{name}")


def unet(name: str, width: int, **config) -> UNet2DConditionModel:
    config = dict(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=2,
        cross_attention_dim=width,
        **config,
    )
    return randomise(UNet2DConditionModel(**config), f"conditioners/{name}/unet")


def vae(name: str) -> AutoencoderKL:
    model = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 4),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        sample_size=16,
    )
    randomise(model, f"conditioners/{name}/vae")
    # Half the range of images, so that few pixels are clipped to black or white.
    model.decoder.conv_out.weight.mul_(0.4)
    return model


def save(folder: Path, tokenizer, **parts) -> None:
    """`StableDiffusionPipeline.save_pretrained`, with the tokenizer's own files."""
    own = folder.parent / "tokenizer"
    pipeline = StableDiffusionPipeline(
        tokenizer=tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(folder / "tokenizer")
    own.rename(folder / "tokenizer")
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def encoded(pipeline: StableDiffusionPipeline, texts) -> tuple[torch.Tensor, torch.Tensor]:
    texts = [pipeline.maybe_convert_prompt(text, pipeline.tokenizer) for text in texts]
    tokens = pipeline.tokenizer(
        texts, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids, tokens.attention_mask


def hidden_states(tensors: dict, name: str, pipeline: StableDiffusionPipeline) -> None:
    """The hidden states of all texts; with the mask; and from one layer earlier, with diffusers' `clip_skip` for CLIP."""
    model = pipeline.text_encoder
    ids, mask = encoded(pipeline, TEXTS)
    states = model(ids, attention_mask=None)[0]
    print(f"  {name}: standard deviation {states.std():.2f}")
    tensors[f"{name}.input_ids"], tensors[f"{name}.attention_mask"] = ids, mask
    tensors[f"{name}.states"] = states
    two = slice(0, 2)
    tensors[f"{name}.masked_states"] = model(ids[two], attention_mask=mask[two])[0]
    assert not torch.allclose(states[two], tensors[f"{name}.masked_states"])
    if isinstance(model, CLIPTextModel):
        skipped = pipeline.encode_prompt(list(TEXTS[two]), "cpu", 1, False, clip_skip=1)[0]
    else:
        skipped = model(ids[two], output_hidden_states=True).hidden_states[-2]
    tensors[f"{name}.skipped_states"] = skipped


def lora(output: Path, tensors: dict, name: str, pipeline: StableDiffusionPipeline, layers, prefix: str, names) -> None:
    """A LoRA of rank 2 for these layers, and the hidden states with it merged at strength 0.5."""
    weights, model = {}, pipeline.text_encoder
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for layer in layers:
        weight = model.state_dict()[f"{layer}.weight"]
        down, up = (0.4 * normal(f"{name}/{layer}/{part}", *shape) for part, shape in (
            ("down", (2, weight.shape[1])), ("up", (weight.shape[0], 2))))
        stem = prefix + (layer.replace(".", "_") if prefix.endswith("_") else layer)
        weights[f"{stem}.{names[0]}.weight"], weights[f"{stem}.{names[1]}.weight"] = down, up
        weights[f"{stem}.alpha"] = torch.tensor(4.0)
        weight += 0.5 * (4.0 / 2) * up @ down
    save_tensors(output / f"{name}_lora.safetensors", weights)
    tensors[f"{name}.lora_states"] = model(encoded(pipeline, TEXTS[1:2])[0])[0]
    model.load_state_dict(before)


def picture(tensors: dict, name: str, pipeline: StableDiffusionPipeline) -> None:
    initial = normal(f"conditioners/{name}.initial", 2, 4, PICTURE["height"] // 2, PICTURE["width"] // 2)
    latents = pipeline(output_type="latent", latents=initial.clone(), **PICTURE).images
    image = pipeline(output_type="pt", latents=initial.clone(), **PICTURE).images
    cut = ((image == 0) | (image == 1)).float().mean().item()
    print(f"  {name}: latents ± {latents.std():.2f}, picture {image.mean():.2f} ± {image.std():.2f}, {cut:.0%} cut off")
    tensors |= {f"{name}.initial_latents": initial, f"{name}.latents": latents, f"{name}.picture": image}


def word(tensors: dict, words: dict, name: str, pipeline: StableDiffusionPipeline) -> None:
    vectors = normal(f"conditioners/{name}.word", 2, pipeline.text_encoder.config.hidden_size) * 0.6
    words[name] = vectors
    pipeline.load_textual_inversion({WORD: vectors.clone()})
    ids, _ = encoded(pipeline, WORD_TEXTS)
    tensors[f"{name}.word_ids"] = ids
    tensors[f"{name}.word_states"] = pipeline.text_encoder(ids)[0]


def openclip(model: CLIPTextModel, more_layers: int = 1) -> dict[str, torch.Tensor]:
    """The tower under OpenCLIP's names, with the last layers that Stable Diffusion 2 does not use."""
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    state = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    tensors = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": normal("openclip.text_projection", 4, 4),
        "logit_scale": torch.tensor(4.6),
    }
    layers = model.config.num_hidden_layers
    for index in range(layers + more_layers):
        block = f"transformer.resblocks.{index}"
        own = f"encoder.layers.{min(index, layers - 1)}"
        for kind in ("weight", "bias"):
            fused = [state[f"{own}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{block}.attn.in_proj_{kind}"] = torch.cat(fused)
            tensors[f"{block}.attn.out_proj.{kind}"] = state[f"{own}.self_attn.out_proj.{kind}"]
            for ours, theirs in names.items():
                tensors[f"{block}.{theirs}.{kind}"] = state[f"{own}.{ours}.{kind}"]
    return tensors


def single_file(folder: Path, text: dict[str, torch.Tensor], prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in text.items()}
    parts = (("unet", UNet2DConditionModel, unet_to_ldm, UNET_PREFIX), ("vae", AutoencoderKL, vae_to_ldm, VAE_PREFIX))
    for part, cls, to_ldm, prefix in parts:
        config = cls(**cls.load_config(folder / part)).config
        for name, tensor in load_file(folder / part / "diffusion_pytorch_model.safetensors").items():
            ldm = to_ldm(name, config)
            tensors[prefix + ldm] = tensor.reshape(ldm_shape(ldm, tensor)).contiguous()
    save_tensors(folder.parent / f"{folder.name}.safetensors", tensors)


def tokenizer_cases(path: Path, folder: Path) -> None:
    """The ids of texts with the padding token in them, which is a special token then."""
    reference = CLIPTokenizerFast.from_pretrained(folder)
    texts = [text for text in dict.fromkeys((*TEXTS[:-1], *PROMPTS, *ODD)) if "!" in text and len(text) < 200]
    texts += ["!", "!!", "a!b", "<|endoftext|>!", "cat !", " ! "]
    save_json(path, [{"text": text, "ids": reference(text).input_ids} for text in texts])
    slow = CLIPTokenizer.from_pretrained(folder)
    differing = [text for text in texts if slow(text).input_ids != reference(text).input_ids]
    print(f"  {path.name}: {len(texts)} texts, the slow tokenizer differs in {differing}")


def make(output: Path) -> None:
    output = output / "conditioners"
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    draw_in_f32(pipeline_stable_diffusion)
    tensors, words, tokenizer = {}, {}, output / "tokenizer"
    pndm = dict(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    ddim = dict(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1)

    clip_tokenizer(tokenizer, "<|endoftext|>")
    tokens = CLIPTokenizer.from_pretrained(tokenizer)
    save(
        output / "sd1",
        tokens,
        text_encoder=clip("sd1", len(tokens), hidden_size=16, hidden_act="quick_gelu"),
        unet=unet("sd1", 16, attention_head_dim=2),
        vae=vae("sd1"),
        scheduler=PNDMScheduler(**BETAS, **pndm),
    )
    clip_tokenizer(tokenizer, "!")
    tokens = CLIPTokenizer.from_pretrained(tokenizer)
    save(
        output / "sd2",
        tokens,
        text_encoder=clip("sd2", len(tokens), hidden_size=20, hidden_act="gelu"),
        unet=unet("sd2", 20, attention_head_dim=(2, 4), use_linear_projection=True),
        vae=vae("sd2"),
        scheduler=DDIMScheduler(**BETAS, **ddim),
    )
    write_vocabulary(tokenizer, do_lower_case=True, model_max_length=PROMPT_TOKENS)
    tokens = BertTokenizer.from_pretrained(tokenizer)
    save(
        output / "taiyi",
        tokens,
        text_encoder=bert("taiyi", len(tokens), hidden_size=16),
        unet=unet("taiyi", 16, attention_head_dim=2),
        vae=vae("taiyi"),
        scheduler=PNDMScheduler(**BETAS, **pndm),
    )
    write_vocabulary(tokenizer, do_lower_case=True, model_max_length=PROMPT_TOKENS)
    # MindSpore's layer norms have another epsilon.
    shape = dict(hidden_size=16, hidden_act="quick_gelu")
    for name, shape in (("pai", shape), ("huahua", shape | dict(intermediate_size=64, layer_norm_eps=1e-7))):
        clip(name, len(tokens), **shape).save_pretrained(output / name / "text_encoder", safe_serialization=True)
        (output / name / "text_encoder/model.safetensors").chmod(0o644)
    tokenizer.rename(output / "pai/tokenizer")

    for name in ("sd1", "sd2", "taiyi"):
        pipeline = StableDiffusionPipeline.from_pretrained(output / name, low_cpu_mem_usage=False, safety_checker=None)
        pipeline.set_progress_bar_config(disable=True)
        hidden_states(tensors, name, pipeline)
        picture(tensors, name, pipeline)
        if name == "taiyi":
            layers = ["encoder.layer.0.attention.self.query", "encoder.layer.2.output.dense"]
            lora(output, tensors, name, pipeline, layers, "text_encoder.", ("lora_A", "lora_B"))
        else:
            layers = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.2.mlp.fc1"]
            lora(output, tensors, name, pipeline, layers, "lora_te_", ("lora_down", "lora_up"))
            text = pipeline.text_encoder.state_dict()
            old = {name: tensor for name, tensor in text.items()} | {
                "text_model.embeddings.position_ids": torch.arange(PROMPT_TOKENS)[None]
            }
            if name == "sd1":
                single_file(output / name, old, f"{TEXT_PREFIX}transformer.")
            else:
                single_file(output / name, openclip(pipeline.text_encoder), f"{TEXT_PREFIX}model.")
        word(tensors, words, name, pipeline)
    # Their images are those of the first model's other parts.
    pipeline = StableDiffusionPipeline.from_pretrained(output / "sd1", low_cpu_mem_usage=False, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.tokenizer = BertTokenizer.from_pretrained(output / "pai/tokenizer")
    for name in ("pai", "huahua"):
        pipeline.text_encoder = CLIPTextModel.from_pretrained(output / name / "text_encoder")
        hidden_states(tensors, name, pipeline)
        picture(tensors, name, pipeline)
    tokenizer_cases(output / "sd2_cases.json", output / "sd2/tokenizer")
    save_json(output / "conditioners.json", {"texts": TEXTS, "word": WORD, "word_texts": WORD_TEXTS, "picture": PICTURE})
    save_tensors(output / "words.safetensors", words)
    save_tensors(output / "golden.safetensors", tensors)
