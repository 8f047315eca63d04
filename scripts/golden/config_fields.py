#!/usr/bin/env python3
"""`config_fields.json`: every field that diffusers' and transformers' classes can write into configurations read here.

Usage::

    PYTHONPATH=VERSIONS config_fields.py --output tests/golden

`VERSIONS` is a directory with `diffusers`, `transformers` and the latter's dependencies. Existing fields are kept, so the
file covers several versions: it was made with 0.31.0 and 4.46.3, then with 0.42.1 and 5.24.0.

diffusers' classes write their constructors' parameters; these are read from the source, so torch is not needed.
transformers' configurations write their attributes, and its image processors their constructors' parameters.
"""

import argparse
import ast
import importlib.util
import json
from pathlib import Path

#: diffusers class: the files that may define it.
DIFFUSERS = {
    "UNet2DConditionModel": ["models/unets/unet_2d_condition.py"],
    "AutoencoderKL": ["models/autoencoders/autoencoder_kl.py"],
    "ControlNetModel": ["models/controlnets/controlnet.py", "models/controlnet.py"],
    "RobertaSeriesConfig": [
        "pipelines/deprecated/alt_diffusion/modeling_roberta_series.py",
        "pipelines/alt_diffusion/modeling_roberta_series.py",
    ],
}

#: transformers configurations.
CONFIGURATIONS = (
    "XLMRobertaConfig",
    "BertConfig",
    "CLIPConfig",
    "CLIPTextConfig",
    "CLIPVisionConfig",
    "AltCLIPConfig",
    "AltCLIPTextConfig",
    "AltCLIPVisionConfig",
    "ChineseCLIPConfig",
    "ChineseCLIPTextConfig",
    "ChineseCLIPVisionConfig",
)

#: transformers image processor: the files that may define it or its arguments.
PROCESSORS = {
    "CLIPImageProcessor": ["models/clip/image_processing_clip.py", "image_processing_utils_fast.py"],
    "ChineseCLIPImageProcessor": ["models/chinese_clip/image_processing_chinese_clip.py"],
}


def parameters(package: Path, files: list[str], name: str) -> set[str]:
    """The parameters of a class' constructor."""
    found = set()
    for file in files:
        if not (package / file).is_file():
            continue
        for node in ast.walk(ast.parse((package / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name == name:
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        arguments = part.args.posonlyargs + part.args.args + part.args.kwonlyargs
                        found |= {argument.arg for argument in arguments} - {"self"}
    return found


def typed(package: Path, file: str, name: str) -> set[str]:
    """The keys of a typed dictionary."""
    if not (package / file).is_file():
        return set()
    for node in ast.walk(ast.parse((package / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    return set()


def schedulers(package: Path) -> dict[str, set[str]]:
    """Every scheduler, with its constructor's parameters."""
    found = {}
    for path in sorted(package.glob("schedulers/**/scheduling_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            bases = {base.id for base in getattr(node, "bases", []) if isinstance(base, ast.Name)}
            if isinstance(node, ast.ClassDef) and bases & {"SchedulerMixin", "FlaxSchedulerMixin", "ConfigMixin"}:
                if node.name.endswith("Scheduler"):
                    found[node.name] = parameters(package, [str(path.relative_to(package))], node.name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    file = parser.parse_args().output / "config_fields.json"

    fields: dict[str, set[str]] = {}
    if file.is_file():
        fields = {name: set(known) for name, known in json.loads(file.read_text(encoding="utf-8")).items()}

    diffusers, package = (Path(importlib.util.find_spec(name).origin).parent for name in ("diffusers", "transformers"))
    for name, files in DIFFUSERS.items():
        fields.setdefault(name, set()).update(parameters(diffusers, files, name))
    for name, known in schedulers(diffusers).items():
        fields.setdefault(name, set()).update(known)

    import transformers

    # Fields that all share are stored once, for other versions of the file to use.
    shared = fields.setdefault("PretrainedConfig", set())
    for name in CONFIGURATIONS:
        fields[name] = fields.get(name, set()) | shared | set(getattr(transformers, name)().to_dict())
    shared |= set.intersection(*(fields[name] for name in CONFIGURATIONS))
    for name in CONFIGURATIONS:
        fields[name] -= shared
    for name, files in PROCESSORS.items():
        fields.setdefault(name, set()).update(parameters(package, files, name) - {"kwargs"})
        fields[name] |= typed(package, "processing_utils.py", "ImagesKwargs")
        fields[name] |= typed(package, "image_processing_utils_fast.py", "DefaultFastImageProcessorKwargs")

    lines = (f"{json.dumps(name)}: {json.dumps(sorted(known))}" for name, known in sorted(fields.items()))
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
