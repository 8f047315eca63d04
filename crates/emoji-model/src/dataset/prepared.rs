//! Holds the prepared data set, on disk and in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use model_files::write_whole;
use safetensors::tensor::{Dtype, SafeTensors, View};

use super::concept::{Concept, fold_case};
use super::images::{IMAGE_BYTES, IMAGE_SIZE};
use crate::error::{Error, Result};

/// The images' file: one u8 tensor `images` (n, 64, 64, 3), RGB on white.
pub const IMAGES_FILE: &str = "images.safetensors";
/// The concepts' file: one JSON object per line.
pub const CONCEPTS_FILE: &str = "concepts.jsonl";
const IMAGES_TENSOR: &str = "images";
/// The former name of the file; its tensor was called alike.
const EARLIER_IMAGES_FILE: &str = "pictures.safetensors";
const EARLIER_IMAGES_TENSOR: &str = "pictures";
/// Emoji with their images and names: a folder with [`IMAGES_FILE`] and [`CONCEPTS_FILE`].
#[derive(Debug)]
pub struct Dataset {
    concepts: Vec<Concept>,
    /// (images, 64, 64, 3)
    pixels: Vec<u8>,
    /// For each image, its concept.
    owners: Vec<usize>,
    /// Concepts by language and lower-case name.
    by_name: HashMap<(String, String), Vec<usize>>,
}

impl Dataset {
    /// Joins concepts and pixels; `path` is used in errors.
    pub(super) fn new(path: &Path, concepts: Vec<Concept>, pixels: Vec<u8>) -> Result<Self> {
        if concepts.is_empty() {
            return Err(Error::data(
                path,
                "expected at least one emoji with a name and an image, found none",
            ));
        }
        let images = pixels.len() / IMAGE_BYTES;
        let mut owners = vec![None; images];
        let mut by_name: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, concept) in concepts.iter().enumerate() {
            for image in &concept.images {
                let owner = owners.get_mut(image.index).ok_or_else(|| {
                    let problem = format!("{} has image {}, but there are {images}", concept.id, image.index);
                    Error::data(path, problem)
                })?;
                if let Some(other) = owner.replace(index) {
                    let other: &Concept = &concepts[other];
                    let problem = format!("{} and {} share image {}", other.id, concept.id, image.index);
                    return Err(Error::data(path, problem));
                }
            }
            for (language, label) in &concept.labels {
                by_name.entry((language.clone(), fold_case(&label.name))).or_default().push(index);
            }
        }
        let owners = owners
            .into_iter()
            .enumerate()
            .map(|(image, owner)| {
                owner.ok_or_else(|| Error::data(path, format!("image {image} belongs to no concept")))
            })
            .collect::<Result<_>>()?;
        Ok(Self { concepts, pixels, owners, by_name })
    }

    /// Reads the data set that [`prepare`](super::prepare) wrote.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, or contradicts the other.
    pub fn load(directory: &Path) -> Result<Self> {
        let concepts_path = directory.join(CONCEPTS_FILE);
        let concepts = std::fs::read_to_string(&concepts_path).map_err(Error::io(&concepts_path))?;
        let concepts = concepts
            .lines()
            .enumerate()
            .map(|(line, text)| {
                serde_json::from_str(text).map_err(|e| {
                    Error::data(&concepts_path, format!("line {}: expected an emoji concept: {e}", line + 1))
                })
            })
            .collect::<Result<Vec<Concept>>>()?;
        let pixels = read_images(directory)?;
        Self::new(&concepts_path, concepts, pixels)
    }

    /// Writes both files atomically.
    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let path = directory.join(IMAGES_FILE);
        let tensor =
            PixelTensor { shape: [self.image_count(), IMAGE_SIZE, IMAGE_SIZE, 3], data: &self.pixels };
        let bytes = safetensors::serialize([(IMAGES_TENSOR, tensor)], None)
            .map_err(|e| Error::data(&path, format!("cannot be written: {e}")))?;
        write_whole(&path, |temporary| std::fs::write(temporary, &bytes))?;

        let path = directory.join(CONCEPTS_FILE);
        let mut lines = Vec::new();
        for concept in &self.concepts {
            serde_json::to_writer(&mut lines, concept)
                .map_err(|e| Error::data(&path, format!("cannot be written: {e}")))?;
            lines.push(b'\n');
        }
        Ok(write_whole(&path, |temporary| std::fs::write(temporary, &lines))?)
    }

    /// All concepts, in Unicode's order, which gives their indices.
    pub fn concepts(&self) -> &[Concept] {
        &self.concepts
    }

    /// Number of images.
    pub fn image_count(&self) -> usize {
        self.owners.len()
    }

    /// All images: (images, 64, 64, 3), RGB on white.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// An image: (64, 64, 3); `None` if the index is out of range.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        self.pixels.chunks_exact(IMAGE_BYTES).nth(index)
    }

    /// For each image, the index of its concept.
    pub fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// The indices of the concepts called `name` in a language, ignoring case.
    pub fn concepts_named(&self, language: &str, name: &str) -> Vec<usize> {
        self.by_name.get(&(language.to_owned(), fold_case(name))).cloned().unwrap_or_default()
    }

    /// The subset whose concepts `keep` accepts, with images renumbered; `None` if that is empty.
    pub fn filtered(&self, keep: impl Fn(&Concept) -> bool) -> Option<Self> {
        self.changed(|concept| keep(concept).then(|| concept.clone()))
    }

    /// The data set with each concept replaced or removed by `change`, and images renumbered; `None` if that is
    /// empty.
    pub(super) fn changed(&self, change: impl Fn(&Concept) -> Option<Concept>) -> Option<Self> {
        let mut concepts: Vec<Concept> = self.concepts.iter().filter_map(change).collect();
        let mut pixels = Vec::new();
        for image in concepts.iter_mut().flat_map(|concept| &mut concept.images) {
            let next = pixels.len() / IMAGE_BYTES;
            pixels.extend_from_slice(self.image(image.index)?);
            image.index = next;
        }
        Self::new(Path::new(CONCEPTS_FILE), concepts, pixels).ok()
    }
}

fn read_images(directory: &Path) -> Result<Vec<u8>> {
    let (path, earlier) = (directory.join(IMAGES_FILE), directory.join(EARLIER_IMAGES_FILE));
    if !path.exists() && earlier.exists() {
        return read_pixels(&earlier, EARLIER_IMAGES_TENSOR);
    }
    read_pixels(&path, IMAGES_TENSOR)
}

/// Reads a tensor of images.
fn read_pixels(path: &Path, name: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::data(path, format!("expected a safetensors file: {e}")))?;
    let tensor =
        file.tensor(name).map_err(|e| Error::data(path, format!("expected a tensor {name}: {e}")))?;
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    match (dtype, shape) {
        (Dtype::U8, &[_, IMAGE_SIZE, IMAGE_SIZE, 3]) => Ok(tensor.data().to_vec()),
        _ => Err(Error::data(
            path,
            format!(
                "tensor {name}: expected U8 (n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3), found {dtype:?} {shape:?}"
            ),
        )),
    }
}

struct PixelTensor<'a> {
    shape: [usize; 4],
    data: &'a [u8],
}

impl View for PixelTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}
