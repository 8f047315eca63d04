//! Compares image formats found in practice with Pillow: transparency, rare endings and rare variants.

use std::collections::BTreeMap;
use std::fs;

use altclip_encoder::images::{self, Background, DecodeOptions, IMAGE_ENDINGS, flatten, grey};
use candle_core::Tensor;
use image::{DynamicImage, Rgba, RgbaImage};
use test_support::{golden, golden_tensors};

/// Golden files and their bytes, by name.
fn files() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(golden("image_formats/files")).unwrap();
    let file =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(|entry| file(entry.unwrap())).collect()
}

fn decode(name: &str, bytes: &[u8]) -> altclip_encoder::Result<DynamicImage> {
    images::decode(name, bytes, DecodeOptions::default())
}

/// Checks the largest difference from a golden (height, width, channels), in steps.
#[track_caller]
fn distance(name: &str, bytes: &[u8], shape: (u32, u32, u8), golden: &Tensor) -> u8 {
    let (width, height, channels) = shape;
    assert_eq!(golden.dims(), [height as usize, width as usize, usize::from(channels)], "{name}");
    let golden: Vec<u8> = golden.flatten_all().unwrap().to_vec1().unwrap();
    bytes.iter().zip(golden).map(|(a, b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn every_format_gives_the_pixels_of_pillow() {
    let (goldens, files) = (golden_tensors("image_formats/golden.safetensors"), files());
    assert!(files.len() > 60);
    for (name, bytes) in &files {
        let image = decode(name, bytes).unwrap();
        let shape = (image.width(), image.height(), image.color().channel_count());
        let allowed = match name.as_str() {
            // The inverse cosine transform is up to the decoder.
            "a.jfif" | "b.jpe" | "d.mpo" | "jpeg.tiff" => 2,
            // Five bits to eight: rounded here, truncated by Pillow.
            "bits_16_555.bmp" | "bits_16_565.bmp" => 1,
            _ => 0,
        };
        let largest = distance(name, image.as_bytes(), shape, &goldens[name]);
        assert!(largest <= allowed, "{name}: {largest} steps");
    }
}

#[test]
fn transparent_images_are_laid_on_the_background_as_by_pillow() {
    let (goldens, mut transparent) = (golden_tensors("image_formats/golden.safetensors"), 0);
    for (name, bytes) in files() {
        let image = decode(&name, &bytes).unwrap();
        let white = flatten(&image, Background::WHITE);
        let Some(golden) = goldens.get(&format!("{name}.white")) else {
            assert!(!image.color().has_alpha(), "{name} is opaque");
            assert_eq!(*white, image.to_rgb8(), "{name}");
            continue;
        };
        let shape = (white.width(), white.height(), 3);
        assert_eq!(distance(&name, white.as_raw(), shape, golden), 0, "{name}");
        // Without a background the hidden colours are used.
        assert_eq!(*flatten(&image, Background::None), image.to_rgb8(), "{name}");
        transparent += 1;
    }
    assert!(transparent >= 12);
}

/// libavif interpolates subsampled colours differently.
#[cfg(feature = "avif")]
#[test]
fn avif_gives_the_pixels_of_pillow() {
    let goldens = golden_tensors("image_formats/golden.safetensors");
    let entries = fs::read_dir(golden("image_formats/avif")).unwrap();
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 8);
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = fs::read(&path).unwrap();
        let image = decode(name, &bytes).unwrap();
        let shape = (image.width(), image.height(), image.color().channel_count());
        let largest = distance(name, image.as_bytes(), shape, &goldens[name]);
        let allowed = if ["400.avif", "444.avif", "lossless.avif"].contains(&name) { 1 } else { 4 };
        assert!(largest <= allowed, "{name}: {largest} steps");
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            let _ = decode(name, &damaged);
            assert!(decode(name, &bytes[..at]).is_err(), "{name} was accepted after {at} bytes");
        }
    }
}

#[cfg(feature = "heic")]
#[test]
fn heic_gives_the_pixels_of_pillows_plugin() {
    let goldens = golden_tensors("image_formats/heic/golden.safetensors");
    assert_eq!(goldens.len(), 7);
    for (name, golden) in &goldens {
        let bytes = fs::read(golden("image_formats/heic").join(name)).unwrap();
        let image = decode(name, &bytes).unwrap();
        let shape = (image.width(), image.height(), image.color().channel_count());
        assert_eq!(distance(name, image.as_bytes(), shape, golden), 0, "{name}");
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            let _ = decode(name, &damaged);
            assert!(decode(name, &bytes[..at]).is_err(), "{name} was accepted after {at} bytes");
        }
    }
}

#[test]
fn grey_is_weighed_as_by_pillow() {
    let golden = &golden_tensors("image_formats/golden.safetensors")["raw.ppm.grey"];
    let image = decode("raw.ppm", &files()["raw.ppm"]).unwrap().into_rgb8();
    let found = grey(&image);
    assert_eq!(distance("raw.ppm", found.as_raw(), (found.width(), found.height(), 1), golden), 0);
    let weighed = |color: [u8; 3]| grey(&image::RgbImage::from_pixel(1, 1, image::Rgb(color))).into_raw()[0];
    // Green is below the middle, and this orange above it: the opposite of Rec. 709.
    assert_eq!([weighed([0, 200, 0]), weighed([255, 100, 0])], [117, 135]);
    for level in [0, 1, 127, 128, 255] {
        assert_eq!(weighed([level; 3]), level);
    }
}

#[test]
fn endings_in_the_golden_files_are_taken_for_images() {
    for name in files().keys().filter(|name| *name != "no_ending") {
        let (_, ending) = name.rsplit_once('.').unwrap();
        assert!(IMAGE_ENDINGS.contains(&ending), "{name}");
    }
}

/// A palette of 172 bytes, not a multiple of three, makes the PNG decoder panic.
#[test]
fn the_panic_of_a_decoder_is_the_error_of_its_file() {
    let error = decode("odd.png", include_bytes!("data/odd_palette.png")).unwrap_err().to_string();
    assert_eq!(error, "odd.png: damaged: it cannot be decoded");
    let palette = files()["palette_alphas.png"].clone();
    let at = palette.windows(4).position(|name| name == b"PLTE").unwrap();
    let length = u32::from_be_bytes(palette[at - 4..at].try_into().unwrap());
    for shorter in 1..=2 {
        // The same chunk, shortened, with its checksum.
        let kept = (length - shorter) as usize;
        let data = &palette[at..at + 4 + kept];
        let mut damaged = [&palette[..at - 4], &(kept as u32).to_be_bytes(), data].concat();
        damaged.extend(crc(data).to_be_bytes());
        damaged.extend(&palette[at + 4 + length as usize + 4..]);
        let error = decode("palette.png", &damaged).unwrap_err().to_string();
        assert!(error.starts_with("palette.png: ") && !error.contains('\n'), "{error}");
    }
}

/// Of 16 bits per channel, whose low bytes are dropped, and with a diagonal that is not opaque.
#[test]
fn interlaced_rows_come_into_their_places() {
    let image = decode("interlaced.png", include_bytes!("data/interlaced_16.png")).unwrap();
    let expected = RgbaImage::from_fn(9, 7, |x, y| {
        let opacity = if x == y { 100 } else { 255 };
        Rgba([x * 25, y * 30, x * y, opacity].map(|value| value as u8))
    });
    assert_eq!(image, DynamicImage::ImageRgba8(expected));
}

/// PNG's checksum.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// Damage may give an error or a faulty image, but never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let options = DecodeOptions { max_pixels: 1 << 16, ..DecodeOptions::default() };
    for (name, bytes) in files() {
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            let _ = images::decode(&name, &damaged, options);
        }
    }
}

/// Only the first image of an animation or a multi-image file counts.
#[test]
fn files_cut_short_are_refused() {
    for (name, bytes) in files() {
        let whole = decode(&name, &bytes).unwrap();
        for sixths in 1..6 {
            match decode(&name, &bytes[..bytes.len() * sixths / 6]) {
                Ok(image) if ["c.apng", "d.mpo"].contains(&name.as_str()) => assert_eq!(image, whole),
                Ok(_) => panic!("{name} was accepted after {sixths} sixths"),
                Err(error) => assert!(error.to_string().starts_with(&name), "{error}"),
            }
        }
    }
}

/// A TIFF of one row of samples with as many channels, of this format and number of bits each.
fn tiff(order: [u8; 2], kind: u16, format: u16, bits: u16, channels: u16, samples: &[Vec<u8>]) -> Vec<u8> {
    let short = |number: u16| if order == *b"II" { number.to_le_bytes() } else { number.to_be_bytes() };
    let long = |number: u32| if order == *b"II" { number.to_le_bytes() } else { number.to_be_bytes() };
    let data = samples.concat();
    let width = u16::try_from(samples.len()).unwrap() / channels;
    let length = u16::try_from(data.len()).unwrap();
    let tags = [
        (256, width),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, kind),
        (273, 8 + 2 + 10 * 12 + 4),
        (277, channels),
        (278, 1),
        (279, length),
        (339, format),
    ];
    let mut file = order.to_vec();
    file.extend(short(42));
    file.extend(long(8));
    file.extend(short(10));
    for (tag, value) in tags {
        file.extend(short(tag));
        file.extend(short(3));
        file.extend(long(1));
        file.extend(short(value));
        file.extend([0; 2]);
    }
    file.extend(long(0));
    file.extend(data);
    file
}

/// As by Pillow, whose conversion of `I` and `F` to RGB cuts numbers off.
#[test]
fn grey_of_32_bits_is_cut_off_at_black_and_white() {
    const WHITE_IS_ZERO: u16 = 0;
    const BLACK_IS_ZERO: u16 = 1;
    let bytes = |order: [u8; 2], number: u32| {
        let number = if order == *b"II" { number.to_le_bytes() } else { number.to_be_bytes() };
        number.to_vec()
    };
    for order in [*b"II", *b"MM"] {
        let integers = [0, 1, 254, 255, 256, 70_000, u32::MAX, 1 << 31];
        let integers: Vec<Vec<u8>> = integers.into_iter().map(|number| bytes(order, number)).collect();
        let floats = [0f32, 0.9, 1.0, 254.9, 255.0, 1e9, -3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let floats: Vec<Vec<u8>> = floats.into_iter().map(|number| bytes(order, number.to_bits())).collect();
        for (format, samples, expected) in [
            (1, &integers, &[0u8, 1, 254, 255, 255, 255, 0, 0][..]),
            (2, &integers, &[0, 1, 254, 255, 255, 255, 0, 0]),
            (3, &floats, &[0, 0, 1, 254, 255, 255, 0, 0, 255, 0]),
        ] {
            let image = decode("wide.tiff", &tiff(order, BLACK_IS_ZERO, format, 32, 1, samples)).unwrap();
            let found: Vec<u8> = image.to_rgb8().pixels().map(|pixel| pixel.0[0]).collect();
            assert_eq!(found, expected, "{format}");
            assert!(image.to_rgb8().pixels().all(|pixel| pixel.0 == [pixel.0[0]; 3]));
        }
        for (kind, format, bits, problem) in [
            (WHITE_IS_ZERO, 3, 32, "floating-point numbers of 32 bits where 0 is white"),
            (BLACK_IS_ZERO, 2, 16, "signed integers of 16 bits"),
            (BLACK_IS_ZERO, 3, 64, "floating-point numbers of 64 bits"),
            (BLACK_IS_ZERO, 3, 16, "floating-point numbers of 16 bits"),
            (BLACK_IS_ZERO, 1, 64, "unsigned integers of 64 bits"),
            (BLACK_IS_ZERO, 4, 32, "neither integers nor floating-point numbers of 32 bits"),
        ] {
            let samples = vec![vec![0; usize::from(bits) / 8]; 4];
            let error = decode("wide.tiff", &tiff(order, kind, format, bits, 1, &samples)).err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(problem) && !error.contains('\n'), "{error}");
        }
    }
}
