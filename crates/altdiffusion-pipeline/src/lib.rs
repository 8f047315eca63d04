//! AltDiffusion: hidden states of a prompt to pictures
