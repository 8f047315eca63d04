"""Defines the models, what is measured, and a folder that stands in for the hub."""

import atexit
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden"
SCRATCH = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
# Before the libraries read them. Where a library asks a hub although it is offline, nobody answers.
os.environ |= {"HF_HOME": str(SCRATCH), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "RUST_BACKTRACE": "0"}
sys.path.insert(0, str(ROOT / "scripts/golden"))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

#: Models with XLM-R and a projection, and their folders.
ALT = {"AltDiffusion": "alt_diffusion", "AltDiffusion-m18": "alt_diffusion_m18"}
#: Other models that draw, and what their golden values are called.
DRAWING = {
    "Stable Diffusion 1": "sd1",
    "Stable Diffusion 2": "sd2",
    "Taiyi-SD": "taiyi",
    "PAI-Diffusion": "pai",
    "Wukong-Huahua": "huahua",
}
HUAHUA = GOLDEN / "conditioners/huahua.ckpt"
ENCODERS = {
    "AltCLIP": "dual_encoders/altclip",
    "AltCLIP-m18": "dual_encoders/altclip_m18",
    "CLIP": "dual_encoders/clip",
    "SigLIP": "siglip/base",
    "SigLIP 2": "siglip/siglip2",
    "OpenCLIP with XLM-R": "open_clip/mlp",
    "NLLB-CLIP": "nllb_clip/base",
    "M-CLIP": "mclip/xlm_roberta",
    "sentence-transformers' multilingual CLIP": "mclip/distilbert",
    "Chinese-CLIP": "dual_encoders/chinese_clip",
    "Taiyi-CLIP": "dual_encoders/taiyi",
    "R2D2": "r2d2/r2d2",
    "PRD2": "r2d2/prd2",
    "Wukong": "wukong/clip",
    "Wukong, FILIP": "wukong/filip",
    "Wukong, reduced tokens": "wukong/reduced",
}


def distance(found, expected: torch.Tensor) -> float:
    found, expected = torch.as_tensor(found).double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def features(output) -> torch.Tensor:
    """Since transformers 5, models return structures."""
    return getattr(output, "pooler_output", output)


def attempt(column: str, model: str, check) -> None:
    """Print a line with what `check` returns, a distance or a text, or with its error."""
    try:
        said = check()
        said = f"{said:.0e}" if isinstance(said, float) else said
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Panics of Rust are no `Exception`.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        said = f"{type(error).__name__}: {lines[0]}"[:240]
    print(f"{column}\t{model}\t{said}", flush=True)


def golden(folder: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / folder / "golden.safetensors")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def on_hub(name: str, folder: Path) -> None:
    """Put a folder where libraries keep what they downloaded."""
    repository, commit = SCRATCH / "hub" / f"models--{name.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def drawing_model(name: str) -> Path:
    """The folder of a model; of PAI-Diffusion and Wukong-Huahua, with the parts of `sd1` that these share."""
    if name not in ("pai", "huahua"):
        return GOLDEN / "conditioners" / name
    folder = SCRATCH / name
    if not folder.exists():
        shutil.copytree(GOLDEN / "conditioners/sd1", folder)
        for part, source in (("tokenizer", "pai"), ("text_encoder", name)):
            shutil.rmtree(folder / part)
            shutil.copytree(GOLDEN / "conditioners" / source / part, folder / part)
        index = read(folder / "model_index.json")
        index["tokenizer"] = ["transformers", "BertTokenizer"]
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
