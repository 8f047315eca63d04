#!/bin/sh
# Quantizes the weights of models/emoji that are embedded in the program.
#
#     scripts/embed-model.sh target/release/altdiffusion
set -eu

program=$(realpath "$1")
model=$(dirname "$0")/../models/emoji
place=$(mktemp -d)
trap 'rm -r "$place"' EXIT

"$program" convert "$model" "$place/blocks" --dtype q5_1
# In q5_1 all parts together would have more than 9 MB.
"$program" convert "$model" "$place/smaller" --dtype q5_0 --quantize-autoencoder
mkdir -p "$model/embedded"
mv "$place/blocks/text_encoder/model.gguf" "$model/embedded/text_encoder.gguf"
mv "$place/blocks/unet/diffusion_pytorch_model.gguf" "$model/embedded/unet.gguf"
mv "$place/blocks/image_encoder/model.gguf" "$model/embedded/image_encoder.gguf"
mv "$place/smaller/vae/diffusion_pytorch_model.gguf" "$model/embedded/vae.gguf"
