//! AltCLIP's multilingual text encoder and image tower: prompts and pictures to vectors and hidden states
