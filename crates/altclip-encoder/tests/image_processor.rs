//! Pictures to pixels, against closed forms.

use altclip_encoder::image_processor::{CropTo, ImageProcessor, ImageProcessorConfig, Resampling, ResizeTo};
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};

/// Neither rescales nor normalises: the result holds the bytes.
fn bytes_only() -> ImageProcessorConfig {
    ImageProcessorConfig { do_rescale: false, do_normalize: false, ..ImageProcessorConfig::default() }
}

/// (3, height, width) as nested vectors.
fn preprocess(config: ImageProcessorConfig, image: impl Into<DynamicImage>) -> Vec<Vec<Vec<f32>>> {
    ImageProcessor::new(config).unwrap().preprocess(&image.into()).unwrap().to_vec3().unwrap()
}

/// A picture whose red says the column and whose green says the row.
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
        let picture = RgbImage::from_pixel(width, height, Rgb([10, 200, 255]));
        let pixels = preprocess(bytes_only(), picture);
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
    let config = read(r#"{"size": 336, "crop_size": 336}"#);
    assert_eq!((config.size, config.crop_size), (ResizeTo::Number(336), CropTo::Number(336)));
    assert_eq!(read("{}"), ImageProcessorConfig::default());
}

#[test]
fn configurations_and_pictures_that_cannot_be_are_refused() {
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
    assert!(refused(1, 5000).contains("too long and thin"));
}
