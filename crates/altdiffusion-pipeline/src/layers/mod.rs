//! Defines the layers that the UNet and the VAE share. Activations are channels-last: (batch, height, width,
//! channels).

pub(crate) mod attention;
pub(crate) mod layout;
pub(crate) mod resnet;
pub(crate) mod sampling;
