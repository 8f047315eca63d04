//! Encodes captions to hidden states and caches them.

use crate::cache::Cache;
use crate::error::Result;
use crate::hash::hash_of_texts;
use crate::stages::realign::{ConditioningRows, ConditioningSource};
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::PROMPT_TOKENS;
use candle_core::{DType, Device, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const ROWS: &str = "rows";
const KEY_BIAS: &str = "key_bias";
const STARTS: &str = "starts";

/// The hidden states of many captions, concatenated without padding. The first is the empty caption.
pub(super) struct CaptionStates {
    /// (rows of all captions, width), on the training device.
    rows: Tensor,
    /// The bias of each row's scores.
    key_bias: Vec<f32>,
    /// The start of each caption, and the end of the last.
    starts: Vec<u32>,
    /// The captions of each image.
    of_image: Vec<Vec<u32>>,
}

impl CaptionStates {
    /// Encodes the captions of each image, and the empty one, one at a time.
    ///
    /// # Errors
    /// If a caption cannot be encoded, or the file cannot be written.
    pub(super) fn of(
        captions: &[Vec<String>],
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        model: &str,
        cache: &Path,
        device: &Device,
    ) -> Result<Self> {
        // Deduplicated: all images of a class may share a caption.
        let (mut texts, mut numbers) = (vec![String::new()], HashMap::from([("", 0u32)]));
        for caption in captions.iter().flatten() {
            numbers.entry(caption).or_insert_with(|| {
                texts.push(caption.clone());
                texts.len() as u32 - 1
            });
        }
        let key = format!("{} captions {:016x} by {model}", texts.len(), hash_of_texts(&texts));
        let make = || {
            let (mut rows, mut key_bias, mut starts) = (Vec::new(), Vec::<f32>::new(), vec![0u32]);
            for text in &texts {
                let encoding = tokenizer.encode_padded(&[text], PROMPT_TOKENS)?;
                let (ids, mask) =
                    (encoding.input_ids.to_device(device)?, encoding.attention_mask.to_device(device)?);
                let states = encoder.encode_compact(&ids, &mask)?;
                let count = states.rows.dim(1)?;
                rows.push(states.rows.squeeze(0)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.detach());
                key_bias.extend(states.key_bias.flatten_all()?.to_vec1::<f32>()?);
                starts.push(starts.last().copied().unwrap_or_default() + count as u32);
            }
            Ok(BTreeMap::from([
                (ROWS.to_owned(), Tensor::cat(&rows, 0)?),
                (KEY_BIAS.to_owned(), Tensor::new(key_bias, &Device::Cpu)?),
                (STARTS.to_owned(), Tensor::new(starts, &Device::Cpu)?),
            ]))
        };
        let cache = Cache::at(cache);
        let tensors = cache.of(&key, make)?;
        let number = |caption: &String| numbers.get(caption.as_str()).copied();
        let of_image = captions.iter().map(|captions| captions.iter().filter_map(number).collect());
        Ok(Self {
            of_image: of_image.collect(),
            rows: cache.tensor(tensors.clone(), ROWS)?.to_device(device)?,
            key_bias: cache.tensor(tensors.clone(), KEY_BIAS)?.to_vec1()?,
            starts: cache.tensor(tensors, STARTS)?.to_vec1()?,
        })
    }

    /// A batch of captions by index; shorter ones are padded with a masked row.
    fn batch(&self, captions: &[u32]) -> Result<ConditioningRows> {
        let range = |&caption: &u32| {
            let start = self.starts.get(caption as usize).copied().unwrap_or_default();
            start..self.starts.get(caption as usize + 1).copied().unwrap_or(start)
        };
        let longest = captions.iter().map(|caption| range(caption).len()).max().unwrap_or_default();
        let (mut rows, mut key_bias) = (Vec::new(), Vec::new());
        for range in captions.iter().map(range) {
            let filler = longest - range.len();
            key_bias.extend_from_slice(
                self.key_bias.get(range.start as usize..range.end as usize).unwrap_or_default(),
            );
            key_bias.extend(std::iter::repeat_n(f32::NEG_INFINITY, filler));
            rows.extend(range);
            rows.extend(std::iter::repeat_n(0, filler));
        }
        let device = self.rows.device();
        let shape = (captions.len(), longest);
        let width = self.rows.dim(1)?;
        let rows = self.rows.index_select(&Tensor::new(rows, device)?, 0)?;
        Ok(ConditioningRows {
            rows: rows.reshape((captions.len(), longest, width))?,
            key_bias: Tensor::from_vec(key_bias, shape, device)?,
            sides: Vec::new(),
        })
    }
}

impl ConditioningSource for CaptionStates {
    fn draw(&self, rng: &mut ChaCha8Rng, images: &[u32], is_dropped: &[bool]) -> Result<ConditioningRows> {
        let caption = |(&image, &is_dropped): (&u32, &bool)| {
            let captions = self.of_image.get(image as usize).map_or(&[][..], Vec::as_slice);
            let chosen = captions.get(rng.random_range(0..captions.len().max(1)));
            if is_dropped { 0 } else { chosen.copied().unwrap_or_default() }
        };
        let captions: Vec<u32> = images.iter().zip(is_dropped).map(caption).collect();
        self.batch(&captions)
    }
}
