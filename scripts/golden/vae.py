"""`vae.safetensors`: images encoded to moments, and decoded latents, by both tiny autoencoders."""

from pathlib import Path

from diffusers import AutoencoderKL

from common import normal, save_tensors

#: (name, batch, latent height, latent width); images are eight times as large.
CASES = (("square", 2, 4, 4), ("wide", 1, 3, 5), ("tall", 1, 7, 2), ("one", 1, 1, 1))

#: The side of a tile in latents, for decoding in tiles.
TILE = 4


def make(output: Path) -> None:
    tensors = {}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        model = AutoencoderKL.from_pretrained(output / repository, subfolder="vae", low_cpu_mem_usage=False).eval()
        exact = AutoencoderKL.from_pretrained(output / repository, subfolder="vae", low_cpu_mem_usage=False).double().eval()
        for name, batch, height, width in CASES:
            prefix = f"{repository}.{name}"
            picture = normal(f"{prefix}.picture", batch, 3, 8 * height, 8 * width).clamp(-1, 1)
            latents = normal(f"{prefix}.latents", batch, 4, height, width)
            moments = model.encode(picture).latent_dist
            decoded = model.decode(latents).sample
            reference = exact.decode(latents.double()).sample
            error = ((decoded - reference).norm() / reference.norm()).item()
            print(f"  {prefix}: f32 is within {error:.1e} of f64, picture {decoded.mean():.2f} ± {decoded.std():.2f}, "
                  f"latents {moments.mean.mean():.2f} ± {moments.mean.std():.2f}, log-variance {moments.logvar.std():.2f}")
            tensors[f"{prefix}.picture"] = picture
            tensors[f"{prefix}.mean"] = moments.mean
            tensors[f"{prefix}.logvar"] = moments.logvar
            tensors[f"{prefix}.latents"] = latents
            tensors[f"{prefix}.decoded"] = decoded
        # Larger than a tile in both dimensions, with truncated tiles at the edges.
        model.enable_tiling()
        model.tile_latent_min_size, model.tile_sample_min_size = TILE, 8 * TILE
        latents = normal(f"{repository}.tiled.latents", 1, 4, 11, 7)
        tensors[f"{repository}.tiled.latents"] = latents
        tensors[f"{repository}.tiled.decoded"] = model.decode(latents).sample
    save_tensors(output / "vae.safetensors", tensors)
