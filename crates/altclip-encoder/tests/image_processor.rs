//! Compares image preprocessing with transformers and Pillow, and with closed forms.

use std::collections::HashMap;

use altclip_encoder::image_processor::{CropTo, ImageProcessor, ImageProcessorConfig, Resampling, ResizeTo};
use altclip_encoder::images;
use candle_core::Tensor;
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use serde::Deserialize;
use test_support::{golden, golden_json, golden_tensors, largest_difference};

/// No rescaling or normalisation: the result holds the bytes.
fn bytes_only() -> ImageProcessorConfig {
    ImageProcessorConfig { do_rescale: false, do_normalize: false, ..ImageProcessorConfig::default() }
}

/// (3, height, width) as nested vectors.
fn preprocess(config: ImageProcessorConfig, image: impl Into<DynamicImage>) -> Vec<Vec<Vec<f32>>> {
    ImageProcessor::new(config).unwrap().preprocess(&image.into()).unwrap().to_vec3().unwrap()
}

/// An image whose red encodes the column and whose green encodes the row.
fn coordinates(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]))
}

#[test]
fn pixels_are_rescaled_and_normalised_by_channel() {
    let config = ImageProcessorConfig {
        do_resize: false,
        do_center_crop: false,
        rescale_factor: 0.01,
        image_mean: [0.5, 1., 0.],
        image_std: [0.5, 0.25, 2.],
        ..ImageProcessorConfig::default()
    };
    let pixels = preprocess(config, RgbImage::from_pixel(2, 1, Rgb([100, 50, 200])));
    assert_eq!(pixels, [[[1., 1.]], [[-2., -2.]], [[1., 1.]]]);
}

#[test]
fn a_plain_colour_stays_what_it_is_at_every_size() {
    for (width, height) in [(64, 64), (500, 300), (1, 9), (224, 1000)] {
        let image = RgbImage::from_pixel(width, height, Rgb([10, 200, 255]));
        let pixels = preprocess(bytes_only(), image);
        for (channel, value) in pixels.iter().zip([10., 200., 255.]) {
            assert_eq!((channel.len(), channel[0].len()), (224, 224));
            assert!(channel.iter().flatten().all(|&pixel| pixel == value));
        }
    }
}

#[test]
fn the_short_side_is_resized_and_the_long_one_keeps_the_proportions() {
    let config = |do_center_crop| ImageProcessorConfig {
        size: ResizeTo::ShortestEdge { shortest_edge: 20 },
        do_center_crop,
        crop_size: CropTo::Number(20),
        ..bytes_only()
    };
    let sides = |pixels: Vec<Vec<Vec<f32>>>| (pixels[0][0].len(), pixels[0].len());
    assert_eq!(sides(preprocess(config(false), coordinates(100, 33))), (60, 20));
    assert_eq!(sides(preprocess(config(false), coordinates(7, 10))), (20, 28));
    assert_eq!(sides(preprocess(config(true), coordinates(7, 10))), (20, 20));
}

#[test]
fn the_centre_is_cut_out_and_missing_borders_are_black() {
    let config = |width, height| ImageProcessorConfig {
        do_resize: false,
        crop_size: CropTo::Exactly { height, width },
        ..bytes_only()
    };
    let [red, green, _] = preprocess(config(2, 3), coordinates(5, 8)).try_into().unwrap();
    assert_eq!(red, [[1., 2.], [1., 2.], [1., 2.]]);
    assert_eq!(green, [[2., 2.], [3., 3.], [4., 4.]]);
    let blue = preprocess(config(4, 2), coordinates(1, 2)).remove(2);
    assert_eq!(blue, [[0., 0., 7., 0.], [0., 0., 7., 0.]]);
}

#[test]
fn an_alpha_channel_is_dropped() {
    let config = ImageProcessorConfig { do_resize: false, do_center_crop: false, ..bytes_only() };
    let pixels = preprocess(config, RgbaImage::from_pixel(1, 1, Rgba([9, 8, 7, 0])));
    assert_eq!(pixels, [[[9.]], [[8.]], [[7.]]]);
}

#[test]
fn both_spellings_of_the_sizes_are_read() {
    let read = |json: &str| serde_json::from_str::<ImageProcessorConfig>(json).unwrap();
    let new =
        r#"{"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 300}, "resample": 2}"#;
    let config = read(new);
    assert_eq!(config.size, ResizeTo::ShortestEdge { shortest_edge: 336 });
    assert_eq!(config.crop_size, CropTo::Exactly { height: 336, width: 300 });
    assert_eq!(config.resample, Resampling::Bilinear);
    assert_eq!(read(r#"{"resample": 4}"#).resample, Resampling::Box);
    assert_eq!(read(r#"{"resample": 5}"#).resample, Resampling::Hamming);
    let config = read(r#"{"size": 336, "crop_size": 336}"#);
    assert_eq!((config.size, config.crop_size), (ResizeTo::Number(336), CropTo::Number(336)));
    assert_eq!(read("{}"), ImageProcessorConfig::default());
}

#[test]
fn configurations_and_images_that_cannot_be_are_refused() {
    let error = |config: ImageProcessorConfig| ImageProcessor::new(config).unwrap_err().to_string();
    let zero = ImageProcessorConfig { crop_size: CropTo::Number(0), ..bytes_only() };
    assert!(error(zero).contains("crop_size is 0"));
    let huge = ImageProcessorConfig { size: ResizeTo::Number(u32::MAX), ..bytes_only() };
    assert!(error(huge).contains("size is 4294967295"));
    let flat = ImageProcessorConfig { image_std: [1., 0., 1.], ..bytes_only() };
    assert!(error(flat).contains("image_std"));
    let message = serde_json::from_str::<ImageProcessorConfig>(r#"{"resample": 9}"#).unwrap_err().to_string();
    assert!(message.contains("resample is 9"), "{message}");

    let processor = ImageProcessor::new(bytes_only()).unwrap();
    let refused =
        |width, height| processor.preprocess(&RgbImage::new(width, height).into()).unwrap_err().to_string();
    assert!(refused(0, 5).contains("empty"));
    assert!(refused((1 << 20) + 1, 1).contains("too long and thin"));
    let whole = ImageProcessorConfig { do_center_crop: false, ..bytes_only() };
    let error = ImageProcessor::new(whole).unwrap().preprocess(&RgbImage::new(1, 10_000).into()).unwrap_err();
    assert!(error.to_string().contains("too large: 224×2240000 pixels"), "{error}");
}

/// `image_processor/cases.json` of the golden values.
#[derive(Deserialize)]
struct Cases {
    processors: HashMap<String, ImageProcessorConfig>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "picture")]
    image: String,
    processor: String,
    /// Whether the golden values include the final values.
    values: bool,
}

struct Goldens {
    cases: Cases,
    tensors: HashMap<String, Tensor>,
}

impl Goldens {
    fn load() -> Self {
        let cases: Cases = golden_json("image_processor/cases.json");
        assert!(cases.cases.len() > 100);
        Self { cases, tensors: golden_tensors("image_processor/golden.safetensors") }
    }

    /// An image decoded by Pillow or, for large ones, which are lossless, by our own decoder.
    fn decoded(&self, image: &str) -> DynamicImage {
        match self.tensors.get(&format!("{image}.decoded")) {
            Some(pixels) => {
                let (height, width, _) = pixels.dims3().unwrap();
                let bytes = pixels.flatten_all().unwrap().to_vec1().unwrap();
                RgbImage::from_raw(width as u32, height as u32, bytes).unwrap().into()
            }
            None => open(image),
        }
    }

    /// The largest difference, in 8-bit steps, from the reference's bytes.
    fn difference(&self, case: &Case, image: &DynamicImage) -> f64 {
        let config = self.cases.processors[&case.processor].clone();
        let config = ImageProcessorConfig { do_rescale: false, do_normalize: false, ..config };
        let ours = ImageProcessor::new(config).unwrap().preprocess(image).unwrap();
        let golden = &self.tensors[&format!("{}.{}.bytes", case.image, case.processor)];
        largest_difference(&ours, &golden.permute((2, 0, 1)).unwrap())
    }
}

fn open(image: &str) -> DynamicImage {
    let path = golden("image_processor/pictures").join(image);
    images::open(path, images::DecodeOptions::default()).unwrap()
}

/// Every filter and every option, on hard edges, noise and gradients, shrinking and enlarging. The arithmetic equals
/// Pillow's, so no difference is allowed.
#[test]
fn the_same_pixels_give_the_references_bytes() {
    let goldens = Goldens::load();
    for case in &goldens.cases.cases {
        let difference = goldens.difference(case, &goldens.decoded(&case.image));
        // The one large lossy image goes through our decoder.
        let allowed = if case.image == "large.jpg" { 3. } else { 0. };
        assert!(difference <= allowed, "{} {}: {difference} steps", case.image, case.processor);
    }
}

/// From the file on, the decoders' differences are included: none, except for JPEG and CMYK, see `tests/image.rs`.
#[test]
fn files_give_the_references_bytes_up_to_the_decoder() {
    let goldens = Goldens::load();
    for case in &goldens.cases.cases {
        let name = &case.image;
        let allowed = if name.ends_with(".jpg") || name == "cmyk.tiff" { 3. } else { 0. };
        let difference = goldens.difference(case, &open(name));
        assert!(difference <= allowed, "{name} {}: {difference} steps", case.processor);
    }
}

#[test]
fn values_are_the_references() {
    let goldens = Goldens::load();
    let mut compared = 0;
    for case in goldens.cases.cases.iter().filter(|case| case.values) {
        let config = goldens.cases.processors[&case.processor].clone();
        let values = ImageProcessor::new(config).unwrap().preprocess(&goldens.decoded(&case.image)).unwrap();
        let golden = &goldens.tensors[&format!("{}.{}.pixel_values", case.image, case.processor)];
        // The same operations in the same precision.
        assert_eq!(largest_difference(&values, golden), 0., "{} {}", case.image, case.processor);
        compared += 1;
    }
    assert!(compared >= 5);
}

#[test]
fn a_batch_is_its_images() {
    let processor = ImageProcessor::new(ImageProcessorConfig::default()).unwrap();
    let images = [coordinates(30, 20), coordinates(300, 400), coordinates(224, 224)].map(DynamicImage::from);
    let batch = processor.preprocess_batch(&images).unwrap();
    assert_eq!(batch.dims(), [3, 3, 224, 224]);
    for (index, image) in images.iter().enumerate() {
        assert_eq!(largest_difference(&batch.get(index).unwrap(), &processor.preprocess(image).unwrap()), 0.);
    }
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let config = ImageProcessorConfig { do_center_crop: false, ..bytes_only() };
    let processor = ImageProcessor::new(config).unwrap();
    let error = |images: &[DynamicImage]| processor.preprocess_batch(images).unwrap_err().to_string();
    assert!(error(&[]).contains("no images"));
    let message = error(&[coordinates(20, 20).into(), coordinates(20, 40).into()]);
    assert!(message.contains("image 1 of the batch is [448, 224]"), "{message}");
    let message = error(&[coordinates(20, 20).into(), coordinates(0, 40).into()]);
    assert!(message.contains("empty"), "{message}");
}

/// The crop of an image of 224 × 4 480 000 pixels, most of which are never computed.
#[test]
fn the_middle_of_a_long_thin_image_is_computed_alone() {
    let image = RgbImage::from_fn(1, 20_000, |_, y| Rgb([(y % 251) as u8; 3]));
    let red = preprocess(bytes_only(), image).remove(0);
    assert_eq!((red.len(), red[0].len()), (224, 224));
    // They lie between the source's pixels 9 999 and 10 000, on a straight part of the ramp.
    for (y, row) in red.iter().enumerate() {
        let expected = if y < 112 { 210. } else { 211. };
        assert!(row.iter().all(|&pixel| pixel == expected), "row {y} has {}, expected {expected}", row[0]);
    }
}

const FILTERS: [Resampling; 6] = [
    Resampling::Nearest,
    Resampling::Lanczos,
    Resampling::Bilinear,
    Resampling::Bicubic,
    Resampling::Box,
    Resampling::Hamming,
];

fn any_image() -> impl Strategy<Value = RgbImage> {
    (1u32..40, 1u32..40).prop_flat_map(|(width, height)| {
        prop::collection::vec(any::<u8>(), (3 * width * height) as usize)
            .prop_map(move |bytes| RgbImage::from_raw(width, height, bytes).unwrap())
    })
}

fn exactly(width: u32, height: u32, resample: Resampling) -> ImageProcessorConfig {
    let size = ResizeTo::Exactly { height, width };
    ImageProcessorConfig { size, resample, do_center_crop: false, ..bytes_only() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_image_of_the_right_size_stays(image in any_image(), filter in prop::sample::select(&FILTERS)) {
        let (width, height) = image.dimensions();
        let pixels = preprocess(exactly(width, height, filter), image.clone());
        for (channel, rows) in pixels.iter().enumerate() {
            for (x, y, pixel) in image.enumerate_pixels() {
                prop_assert_eq!(rows[y as usize][x as usize], f32::from(pixel.0[channel]));
            }
        }
    }

    /// Bicubic and Lanczos overshoot; the others average, and nearest neighbour returns a source byte.
    #[test]
    fn averages_stay_between_the_darkest_and_the_brightest(
        image in any_image(), width in 1u32..50, height in 1u32..50,
        filter in prop::sample::select(vec![
            Resampling::Nearest, Resampling::Bilinear, Resampling::Box, Resampling::Hamming,
        ]),
    ) {
        let pixels = preprocess(exactly(width, height, filter), image.clone());
        for (channel, pixels) in pixels.iter().enumerate() {
            let source: Vec<f32> = image.pixels().map(|pixel| f32::from(pixel.0[channel])).collect();
            let (darkest, brightest) = source.iter().fold((255f32, 0f32), |(d, b), &s| (d.min(s), b.max(s)));
            for pixel in pixels.iter().flatten() {
                prop_assert!((darkest..=brightest).contains(pixel));
                prop_assert!(filter != Resampling::Nearest || source.contains(pixel));
            }
        }
    }
}
