//! Encodes images to latents and decodes them: the variational autoencoder of latent diffusion (Rombach et al., 2022,
//! arXiv:2112.10752), as in diffusers' `AutoencoderKL`.

mod config;
mod decoder;
mod encoder;
mod mid_block;
mod moments;
mod tiling;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, compute_dtype};

use crate::cancellation::Cancellation;
use crate::layers::layout::{same_size, to_channels_first, to_channels_last};
use crate::{Error, Result};
pub use config::AutoencoderKlConfig;
use decoder::Decoder;
use encoder::Encoder;
pub use moments::Moments;
pub use tiling::Tiling;

/// The autoencoder: an encoder to the moments of a normal distribution over latents, and a decoder.
#[derive(Debug, Clone)]
pub struct AutoencoderKl {
    /// None in models that only draw, such as Wukong-Huahua.
    encoder: Option<Encoder>,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    dtype: DType,
    config: AutoencoderKlConfig,
}

impl AutoencoderKl {
    /// Reads the weights from `vb`, which may hold trainable variables. If it only has a decoder, images cannot be
    /// encoded.
    ///
    /// # Errors
    /// A configuration that is not supported, or a weight that is missing or has another shape.
    pub fn new(config: &AutoencoderKlConfig, vb: VarBuilder) -> Result<Self> {
        config.check()?;
        let latent = config.latent_channels;
        let has = |part: &str| vb.contains_tensor(&format!("{part}.conv_in.weight"));
        // Trainable variables do not exist yet.
        let has_encoder = has("encoder") || !has("decoder");
        let quant_conv = (config.use_quant_conv && has_encoder)
            .then(|| Conv2d::new(2 * latent, 2 * latent, 1, same_size(1), vb.pp("quant_conv")))
            .transpose()?;
        let post_quant_conv = config
            .use_post_quant_conv
            .then(|| Conv2d::new(latent, latent, 1, same_size(1), vb.pp("post_quant_conv")))
            .transpose()?;
        Ok(Self {
            encoder: has_encoder.then(|| Encoder::new(config, vb.pp("encoder"))).transpose()?,
            decoder: Decoder::new(config, vb.pp("decoder"))?,
            quant_conv,
            post_quant_conv,
            dtype: compute_dtype(vb.dtype(), vb.device()),
            config: config.clone(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// The factor of latents before diffusion, which gives them about unit variance.
    pub fn scaling_factor(&self) -> f64 {
        self.config.scaling_factor
    }

    /// Pixels per latent along each side.
    pub fn downscale(&self) -> usize {
        self.config.downscale()
    }

    /// Encodes pixels (batch, channels, height, width), −1 to 1, to the moments of their unscaled latents: (batch,
    /// latent channels, ⌊height / downscale⌋, ⌊width / downscale⌋). Computes in [`compute_dtype`] and returns the
    /// pixels' dtype.
    ///
    /// # Errors
    /// If the pixels have another rank or number of channels, or there are fewer of them than one latent covers.
    pub fn encode(&self, pixels: &Tensor) -> Result<Moments> {
        self.check_shape("pixels", pixels, self.config.in_channels, self.downscale())?;
        let moments = self.encode_channels_last(&to_channels_last(&pixels.to_dtype(self.dtype)?)?)?;
        let to_caller = |moment: &Tensor| to_channels_first(moment)?.to_dtype(pixels.dtype());
        Ok(Moments { mean: to_caller(&moments.mean)?, log_variance: to_caller(&moments.log_variance)? })
    }

    /// Like [`encode`](Self::encode), channels-last on both sides and in [`compute_dtype`].
    pub fn encode_channels_last(&self, pixels: &Tensor) -> Result<Moments> {
        let encoder = self.encoder.as_ref().ok_or_else(|| {
            let problem = "cannot be encoded: the autoencoder of this model has a decoder only";
            Error::option("image", problem)
        })?;
        let mut moments = encoder.forward(pixels)?;
        if let Some(quant_conv) = &self.quant_conv {
            moments = quant_conv.forward(&moments)?;
        }
        Ok(Moments::from_channels_last(&moments)?)
    }

    /// Decodes unscaled latents (batch, latent channels, height, width) to pixels (batch, channels, height ×
    /// downscale, width × downscale), about −1 to 1. Computes in [`compute_dtype`] and returns the latents' dtype.
    ///
    /// # Errors
    /// If the latents have another rank or number of channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_unless(latents, &Cancellation::default())
    }

    /// Like [`decode`](Self::decode), but can be cancelled between levels.
    pub(super) fn decode_unless(&self, latents: &Tensor, cancellation: &Cancellation) -> Result<Tensor> {
        let pixels = self.decode_pixels(latents, cancellation)?;
        Ok(to_channels_first(&pixels)?.to_dtype(latents.dtype())?)
    }

    /// Like [`decode`](Self::decode), with channels-last pixels in [`compute_dtype`].
    pub(crate) fn decode_pixels(&self, latents: &Tensor, cancellation: &Cancellation) -> Result<Tensor> {
        self.check_shape("latents", latents, self.config.latent_channels, 1)?;
        self.decode_input(&to_channels_last(&latents.to_dtype(self.dtype)?)?, cancellation)
    }

    /// Like [`decode`](Self::decode), channels-last on both sides and in [`compute_dtype`].
    pub fn decode_channels_last(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_input(latents, &Cancellation::default())
    }

    fn decode_input(&self, latents: &Tensor, cancellation: &Cancellation) -> Result<Tensor> {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?, cancellation),
            None => self.decoder.forward(latents, cancellation),
        }
    }

    /// Checks that `tensor` is (batch, `channels`, height, width), with sides of at least `smallest`.
    fn check_shape(
        &self,
        name: &'static str,
        tensor: &Tensor,
        channels: usize,
        smallest: usize,
    ) -> Result<()> {
        match tensor.dims() {
            &[_, c, height, width] if c == channels && height.min(width) >= smallest => Ok(()),
            found => Err(Error::Shape {
                tensor: name,
                expected: format!("(batch, {channels}, height, width), at least {smallest} high and wide"),
                found: format!("{found:?}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::VarMap;
    use model_files::ErrorKind;

    use super::*;

    /// The decoder checks for cancellation between levels, whole and in tiles.
    #[test]
    fn decoding_can_be_cancelled() -> Result<()> {
        let config = AutoencoderKlConfig { block_out_channels: vec![32], ..AutoencoderKlConfig::default() };
        let vae =
            AutoencoderKl::new(&config, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
        let latents = Tensor::zeros((1, config.latent_channels, 4, 4), DType::F32, &Device::Cpu)?;
        let (tiling, cancellation) = (Tiling::of_side(2).overlap(0.5), Cancellation::new());
        assert_eq!(vae.decode_pixels(&latents, &cancellation)?.dims(), [1, 4, 4, 3]);
        assert_eq!(vae.decode_tiled_unless(&latents, tiling, &cancellation)?.dims(), [1, 3, 4, 4]);
        cancellation.cancel();
        let kind = |error: Option<Error>| error.map(|error| error.kind());
        assert_eq!(kind(vae.decode_pixels(&latents, &cancellation).err()), Some(ErrorKind::Cancelled));
        let tiled = vae.decode_tiled_unless(&latents, tiling, &cancellation);
        assert_eq!(kind(tiled.err()), Some(ErrorKind::Cancelled));
        Ok(())
    }
}
