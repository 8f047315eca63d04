"""Prompts to images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _altdiffusion as native
from ._arguments import each, finite, first, seed_of, states_of, steps_of, texts_of, whole
from ._errors import InputError
from ._images import File, image_file, images_of
from ._names import dtype_name, model_options, shown
from ._random import noise_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image

    from ._images import ImageLike

@dataclass
class PipelineOutput:
    """What a run drew."""

    images: list[Image] | NDArray[np.float32]
    """Pillow images; or an array, as `output_type` says."""
    nsfw_content_detected: list[bool] | None
    """Whether each image was flagged and is black, if the model has a safety checker."""
    latents: NDArray[np.float32] = field(repr=False)
    """The latents before decoding, (images, channels, height, width)."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images, self.nsfw_content_detected))

    def __getitem__(self, index: int | str) -> Any:
        if not isinstance(index, str):
            return (self.images, self.nsfw_content_detected)[index]
        if index not in ("images", "nsfw_content_detected", "latents"):
            raise KeyError(index)
        return getattr(self, index)


class Pipeline:
    """A model that draws images from prompts.

    Args:
        name: a directory or a repository in the layout of diffusers, such as "BAAI/AltDiffusion-m9", or one file in the
            naming of latent diffusion, with `config`. By default the model inside the package.
        dtype: of the weights: "f32", "f16", "bf16" or, on the CPU alone, "int8"; or a type of torch or
            NumPy. `torch_dtype` says the same.
        device: "cpu", "cuda", "cuda:1", "metal", or "auto", a GPU if there is one and the package was built for it.
        revision: of a repository: a branch, a tag or a commit.
        variant: of the weights, such as "fp16".
        config: a directory or a repository with the tokenizer and configurations of a model in one file.
        controlnet: a ControlNet or a list of them: files, directories or repositories.
        vae: an autoencoder in place of the model's own: a file, a directory or a repository, such as
            "stabilityai/sd-vae-ft-mse".
        safety_checker: whether images are checked, if the model has a checker. Flagged ones are black.
        low_memory: keep each part in memory only while it runs.

    Threads can share it. A pickle holds its name and options, and loads it again.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None = None,
        *,
        dtype: Any = None,
        torch_dtype: Any = None,
        device: Any = "auto",
        revision: str | None = None,
        variant: str | None = None,
        config: str | os.PathLike[str] | None = None,
        controlnet: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        vae: str | os.PathLike[str] | None = None,
        safety_checker: bool = True,
        low_memory: bool = False,
    ) -> None:
        chosen = dtype if dtype is not None else torch_dtype if torch_dtype is not None else "f32"
        nets = [controlnet] if isinstance(controlnet, (str, os.PathLike)) else list(controlnet)
        model = model_options(name, dtype=chosen, device=device, revision=revision, variant=variant, config=config)
        self._loras: dict[str, tuple[str, float]] = {}
        additions: native.Additions = {
            "loras": [],
            "words": [],
            "vae": None if vae is None else os.path.abspath(vae) if os.path.exists(vae) else os.fspath(vae),
            "low_memory": low_memory,
            "safety_checker": bool(safety_checker),
        }
        self._nets = [os.path.abspath(net) if os.path.exists(net) else os.fspath(net) for net in nets]
        self._load(model, additions)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] | None = None, **options: Any) -> Pipeline:
        """The same as `Pipeline(name, ...)`."""
        return cls(name, **options)

    def _load(self, model: native.ModelOptions, additions: native.Additions) -> None:
        loaded = native.Pipeline(model, additions)
        controlnets = [loaded.load_controlnet(net) for net in self._nets]
        self._native, self._controlnets = loaded, controlnets
        self._model, self._additions = model, additions

    def to(self, device: Any = None, dtype: Any = None) -> Pipeline:
        """Loads the model on another device, or with weights of another type. Returns this pipeline."""
        if device is not None and not isinstance(device, str) and not hasattr(device, "index"):
            device, dtype = None, device
        model: native.ModelOptions = {**self._model}
        if device is not None:
            model["device"] = str(device)
        if dtype is not None:
            model["dtype"] = dtype_name(dtype)
        if model != self._model:
            self._load(model, self._additions)
        return self

    @property
    def default_size(self) -> tuple[int, int]:
        """Width and height of the images that the model was trained on, in pixels."""
        return self._native.default_size

    def load_lora_weights(
        self,
        name: str | os.PathLike[str],
        *,
        weight_name: str | None = None,
        adapter_name: str | None = None,
        scale: float = 1.0,
    ) -> None:
        """Adds a LoRA at a strength: a file, a directory or a repository, of which `weight_name` is the file.

        Files of diffusers, PEFT, kohya's scripts and LyCORIS are read. Several LoRAs add up; `set_adapters` changes
        their strengths.
        """
        path = os.fspath(name) if weight_name is None else os.path.join(os.fspath(name), weight_name)
        adapter = adapter_name or f"default_{len(self._loras)}"
        if adapter in self._loras:
            raise InputError(f"adapter_name {adapter}: expected a new name, found one in use")
        self._set_loras({**self._loras, adapter: (os.path.abspath(path) if os.path.exists(path) else path, scale)})

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Sets the strengths of the LoRAs with these names, 1 by default, and 0 for all others."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if adapter_weights is None:
            weights = [1.0] * len(names)
        elif isinstance(adapter_weights, (int, float)):
            weights = [float(adapter_weights)] * len(names)
        else:
            weights = list(adapter_weights)
        if len(weights) != len(names):
            raise InputError(f"adapter_weights: expected {len(names)}, one for each name, found {len(weights)}")
        unknown = [name for name in names if name not in self._loras]
        if unknown:
            raise InputError(f"adapter {unknown[0]}: expected one of {', '.join(self._loras) or 'none'}")
        given = dict(zip(names, weights))
        self._set_loras({name: (path, given.get(name, 0.0)) for name, (path, _) in self._loras.items()})

    def unload_lora_weights(self) -> None:
        """Removes all LoRAs."""
        self._set_loras({})

    def _set_loras(self, loras: dict[str, tuple[str, float]]) -> None:
        used = [lora for lora in loras.values() if lora[1] != 0]
        self._load(self._model, {**self._additions, "loras": used})
        self._loras = loras

    def load_textual_inversion(self, name: str | os.PathLike[str], token: str | None = None) -> None:
        """Adds a learned word, called as its file says or as `token` says: a file, a directory or a repository."""
        path = os.path.abspath(name) if os.path.exists(name) else os.fspath(name)
        words = [*self._additions["words"], (path, token)]
        self._load(self._model, {**self._additions, "words": words})

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int | None = None,
        *,
        steps: int | None = None,
        seed: int | None = None,
        generator: Any = None,
        image: ImageLike | None = None,
        strength: float | None = None,
        mask_image: ImageLike | None = None,
        control_image: ImageLike | Sequence[ImageLike] | None = None,
        controlnet_conditioning_scale: float | Sequence[float] = 1.0,
        control_guidance_start: float | Sequence[float] = 0.0,
        control_guidance_end: float | Sequence[float] = 1.0,
        guess_mode: bool = False,
        prompt_embeds: ArrayLike | None = None,
        negative_prompt_embeds: ArrayLike | None = None,
        latents: ArrayLike | None = None,
        scheduler: str | None = None,
        sigma_spacing: str | None = None,
        timestep_spacing: str | None = None,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        eta: float = 0.0,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        scale: int | None = None,
        output_type: Literal["pil", "np", "latent"] = "pil",
        callback: Callable[[int, float, NDArray[np.float32]], object] | None = None,
        callback_steps: int = 1,
        callback_on_step_end: Callable[[Pipeline, int, float, dict[str, Any]], object] | None = None,
    ) -> PipelineOutput:
        """Draws images, with diffusers' names and meanings.

        Args:
            prompt: one or several texts.
            height, width: in pixels, multiples of 8. By default what the model was trained on, and 256 for the model
                inside the package, which draws 64 and enlarges that.
            num_inference_steps: denoising steps, 50 by default, and 6 for the model inside the package. `steps` is the
                same.
            guidance_scale: how far to follow the prompt: 7.5 by default, and 1.5 for the model inside the package.
            negative_prompt: what to keep out: one text, or one for each prompt.
            num_images_per_prompt: 1 by default.
            seed: of the noise. The image is the one that diffusers draws with
                `torch.Generator().manual_seed(seed)`. By default 0.
            generator: a `torch.Generator`, or one for each image, from which the noise is drawn as in diffusers.
            image: the image to begin with; or the one to follow, if there is a ControlNet and no `control_image`.
            strength: how much of `image` may change, from 0 to 1: 0.8 by default, and 1 with a mask.
            mask_image: white where `image` is to be drawn anew.
            control_image: the image to follow with the ControlNet, or one for each.
            prompt_embeds, negative_prompt_embeds: hidden states (prompts, tokens, width) instead of the texts.
            latents: the initial noise, (images, channels, height / 8, width / 8).
            scheduler: instead of the model's: ddpm, ddim, pndm, lms, heun, euler, euler-a, dpm++-2m, dpm++-2m-sde,
                dpm++-s, unipc or lcm.
            sigma_spacing: of the noise levels: timesteps, karras, exponential, beta or lu.
            timestep_spacing: leading, trailing or linspace.
            timesteps, sigmas: to visit, instead of a number of steps, for the schedulers that take them.
            eta: how much noise DDIM adds, from 0 to 1.
            guidance_rescale: how much of the contrast that guidance adds is removed, from 0 to 1.
            clip_skip: take the hidden states from that many layers before the last.
            scale: how many times larger the images get along each side once they are drawn, 1 to 4: by the model's own
                network, or by interpolation if it has none. By default 1, and 4 for the model inside the package unless
                `height` or `width` is given.
            output_type: "pil"; "np" for an array (images, height, width, 3) of numbers from 0 to 1; "latent" for the
                latents.
            callback: called as `callback(step, timestep, latents)` after every `callback_steps` steps. An exception
                ends the run.
            callback_on_step_end: called as `callback_on_step_end(self, step, timestep, {"latents": latents})` after
                each step. It cannot change the latents.
        """
        if output_type not in ("pil", "np", "latent"):
            raise InputError(f'output_type {output_type!r}: expected "pil", "np" or "latent"')
        count = first("num_inference_steps", num_inference_steps, "steps", steps)
        if self._model["name"] is None:
            count = native.BUILT_IN_STEPS if count is None else count
            guidance_scale = native.BUILT_IN_GUIDANCE_SCALE if guidance_scale is None else guidance_scale
            if scale is None and width is None and height is None:
                scale = native.BUILT_IN_SCALE
        prompts = [] if prompt is None else texts_of("prompt", prompt)
        each_prompt = 1 if num_images_per_prompt is None else whole("num_images_per_prompt", num_images_per_prompt)
        options: dict[str, Any] = {
            "steps": steps_of(50 if count is None else count, timesteps, sigmas),
            "guidance": {
                "scale": finite("guidance_scale", 7.5 if guidance_scale is None else guidance_scale),
                "rescale": finite("guidance_rescale", guidance_rescale),
            },
            "seed": seed_of(seed, generator),
            "eta": finite("eta", eta),
            "clip_skip": whole("clip_skip", clip_skip or 0),
            "guess_mode": bool(guess_mode),
            "scale": None if scale is None else whole("scale", scale),
            "scheduler": scheduler,
            "sigma_spacing": sigma_spacing,
            "timestep_spacing": timestep_spacing,
            "width": None if width is None else whole("width", width),
            "height": None if height is None else whole("height", height),
            "images": each_prompt,
            "strength": None if strength is None else finite("strength", strength),
        }
        states, negative_states = states_of(prompt_embeds), states_of(negative_prompt_embeds)
        if (states is None) == (not prompts):
            raise InputError("prompt: expected either texts or prompt_embeds")
        if prompts:
            options["prompts"] = prompts
        if negative_prompt is not None and negative_states is not None:
            raise InputError("negative_prompt: expected either texts or negative_prompt_embeds, found both")
        texts = texts_of("negative_prompt", negative_prompt or [""])
        if len(set(texts)) == 1:
            options["negative_prompt"] = texts[0]
        else:
            negative_states, _ = self._native.text_encoder().encode(texts, options["clip_skip"])
        if self._nets and control_image is None and mask_image is None and strength is None:
            image, control_image = None, image
        drawn = (len(prompts) or len(cast(Any, states))) * each_prompt
        inputs: native.Inputs = {
            "image": None if image is None else image_file(image, "image"),
            "mask": None if mask_image is None else image_file(mask_image, "mask_image"),
            "controls": self._controls(
                control_image, controlnet_conditioning_scale, control_guidance_start, control_guidance_end
            ),
            "latents": states_of(latents),
            "prompt_embeds": states,
            "negative_prompt_embeds": negative_states,
            "noise": None if generator is None else noise_of(generator, drawn),
            "callback": self._reports(callback, callback_steps, callback_on_step_end),
        }
        given = {key: value for key, value in options.items() if value is not None}
        pixels, flagged, found = self._native.generate(json.dumps(given), inputs)
        images: Any = found
        if output_type == "pil":
            images = images_of(pixels)
        elif output_type == "np":
            images = pixels.astype("float32") / 255
        return PipelineOutput(images, flagged, found)

    def _controls(
        self, images: Any, scale: Any, start: Any, end: Any
    ) -> list[tuple[native.ControlNet, File, float, float, float]]:
        if images is None:
            followed = []
        elif len(self._controlnets) > 1 and isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
            followed = list(images)
        else:
            followed = [images[0] if isinstance(images, list) and len(images) == 1 else images]
        nets = self._controlnets
        if len(followed) != len(nets):
            raise InputError(
                f"control_image: expected {len(nets)}, one for each controlnet of the pipeline, found {len(followed)}"
            )
        files = [image_file(image, "control_image") for image in followed]
        scales = each("controlnet_conditioning_scale", scale, len(nets))
        starts, ends = (each("control_guidance_start", start, len(nets)), each("control_guidance_end", end, len(nets)))
        return list(zip(nets, files, scales, starts, ends))

    def _reports(
        self, callback: Any, every: int, on_step_end: Any
    ) -> Callable[[int, float, NDArray[np.float32]], object] | None:
        if callback is None and on_step_end is None:
            return None
        if every < 1:
            raise InputError(f"callback_steps {every}: expected at least 1")

        def report(step: int, timestep: float, latents: NDArray[np.float32]) -> None:
            if callback is not None and step % every == 0:
                callback(step, timestep, latents)
            if on_step_end is not None:
                returned = on_step_end(self, step, timestep, {"latents": latents})
                if isinstance(returned, dict) and returned.get("latents", latents) is not latents:
                    raise InputError("callback_on_step_end: expected the latents as they were, found others")

        return report

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_native"], state["_controlnets"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load(self._model, self._additions)

    def __repr__(self) -> str:
        added = [f"loras={list(self._loras)}"] if self._loras else []
        nets = [f"controlnet={self._nets}"] if self._nets else []
        return f"Pipeline({', '.join([shown(self._model), *added, *nets])})"
