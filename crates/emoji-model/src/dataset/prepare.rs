//! Builds the data set's files from the npm packages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::cldr::{Annotations, LANGUAGES};
use super::concept::{Composition, Concept, ImageRef};
use super::images::{IMAGE_BYTES, IMAGE_SIZE, decode_on_white};
use super::packages::Package;
use super::prepared::Dataset;
use super::retrieval_sets::write_retrieval_sets;
use super::selection::{EmojiRecord, emoji_text, is_concept};
use super::split::DataSplit;
use crate::error::{Error, Result};

/// The drawing styles with packages (`emoji-datasource-google`, `emoji-datasource-twitter`).
pub const VENDORS: [&str; 2] = ["google", "twitter"];

/// The options of [`prepare`].
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Folder with the npm packages `cldr-annotations-full`, `cldr-annotations-derived-full` and
    /// `emoji-datasource-VENDOR`, each as a folder or as its `.tgz`.
    pub packages: PathBuf,
    /// Output folder, created if necessary.
    pub output: PathBuf,
    /// Languages of the names, from [`LANGUAGES`].
    pub languages: Vec<String>,
    /// Drawing styles, from [`VENDORS`].
    pub vendors: Vec<String>,
    /// Whether people in the five skin tones are additional concepts.
    pub skin_tones: bool,
}

impl PrepareOptions {
    /// Every language, both drawing styles and all skin tones.
    pub fn new(packages: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            packages: packages.into(),
            output: output.into(),
            languages: LANGUAGES.map(String::from).to_vec(),
            vendors: VENDORS.map(String::from).to_vec(),
            skin_tones: true,
        }
    }
}

/// What [`prepare`] wrote; displayed as a short table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareReport {
    /// Number of concepts.
    pub concepts: usize,
    /// Number of images, over all drawing styles.
    pub images: usize,
    /// Concepts per category, in Unicode's order.
    pub categories: Vec<(String, usize)>,
    /// Held-out people in a skin tone: see [`DataSplit`].
    pub held_out_compositions: usize,
    /// Held-out keywords in a language.
    pub held_out_keywords: usize,
    /// Held-out images in a style.
    pub held_out_images: usize,
}

impl fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} concepts, {} images", self.concepts, self.images)?;
        for (category, count) in &self.categories {
            writeln!(f, "{count:>6}  {category}")?;
        }
        Ok(())
    }
}

/// Builds the data set from the npm packages and writes it to `options.output` (see [`Dataset`] for the files), with
/// what is held out from training ([`DataSplit`]), also as retrieval data sets.
///
/// # Errors
///
/// If a package is missing or damaged, an image is not 64 × 64, a language or vendor is unknown, or the output folder
/// cannot be written. Nothing partial is left behind.
pub fn prepare(options: &PrepareOptions) -> Result<PrepareReport> {
    check_choice("languages", &options.languages, &LANGUAGES)?;
    check_choice("vendors", &options.vendors, &VENDORS)?;
    let basic = Package::find(&options.packages, "cldr-annotations-full")?;
    let derived = Package::find(&options.packages, "cldr-annotations-derived-full")?;
    let annotations = Annotations::read(&basic, &derived, &options.languages)?;
    let styles =
        options.vendors.iter().map(|vendor| Style::read(options, vendor)).collect::<Result<Vec<_>>>()?;

    let mut records: BTreeMap<(u32, String), (EmojiRecord, Option<Composition>)> = BTreeMap::new();
    for record in styles.iter().flat_map(|style| &style.records).filter(|record| is_concept(record)) {
        records.insert((record.sort_order, record.unified.clone()), (record.clone(), None));
        if options.skin_tones {
            for (tone, toned) in record.in_skin_tones() {
                let composition = Composition { base: record.unified.clone(), skin_tone: tone.to_owned() };
                records.insert((toned.sort_order, toned.unified.clone()), (toned, Some(composition)));
            }
        }
    }
    // Versions of the packages order emoji differently; the first occurrence counts.
    let mut seen = std::collections::HashSet::new();
    let mut concepts: Vec<Concept> = Vec::new();
    let mut pixels = Vec::new();
    for (record, composition) in records.into_values() {
        if !seen.insert(record.unified.clone()) {
            continue;
        }
        let Some(emoji) = emoji_text(&record.unified) else {
            continue;
        };
        let labels: BTreeMap<_, _> = std::iter::zip(&options.languages, &annotations)
            .filter_map(|(language, table)| Some((language.clone(), table.get(&emoji)?.clone())))
            .collect();
        let mut images = Vec::new();
        for style in &styles {
            if let Some((path, png)) = style.image(&record) {
                images.push(ImageRef { vendor: style.vendor.clone(), index: pixels.len() / IMAGE_BYTES });
                pixels.extend(decode_on_white(&path, png, IMAGE_SIZE)?);
            }
        }
        if !labels.is_empty() && !images.is_empty() {
            concepts.push(Concept::new(&record, emoji, images, labels, composition));
        }
    }
    let dataset = Dataset::new(&options.packages, concepts, pixels)?;
    dataset.save(&options.output)?;
    let split = DataSplit::of(&dataset);
    split.save(&options.output)?;
    write_retrieval_sets(&split, &dataset, &options.output)?;
    Ok(report(&dataset, &split))
}

fn check_choice(option: &'static str, chosen: &[String], known: &[&str]) -> Result<()> {
    if chosen.is_empty() {
        return Err(Error::Option {
            option,
            problem: format!("expected some of {}, found none", known.join(", ")),
        });
    }
    match chosen.iter().find(|choice| !known.contains(&choice.as_str())) {
        Some(unknown) => Err(Error::Option {
            option,
            problem: format!("expected some of {}, found {unknown}", known.join(", ")),
        }),
        None => Ok(()),
    }
}

fn report(dataset: &Dataset, split: &DataSplit) -> PrepareReport {
    let mut categories: Vec<(String, usize)> = Vec::new();
    for concept in dataset.concepts() {
        match categories.iter_mut().find(|(category, _)| *category == concept.category) {
            Some((_, count)) => *count += 1,
            None => categories.push((concept.category.clone(), 1)),
        }
    }
    PrepareReport {
        concepts: dataset.concepts().len(),
        images: dataset.image_count(),
        categories,
        held_out_compositions: split.compositions.len(),
        held_out_keywords: split.keywords.len(),
        held_out_images: split.images.len(),
    }
}

/// An `emoji-datasource` package: its table and its 64-pixel images.
struct Style {
    vendor: String,
    package: Package,
    records: Vec<EmojiRecord>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Style {
    fn read(options: &PrepareOptions, vendor: &str) -> Result<Self> {
        const TABLE: &str = "emoji.json";
        let package = Package::find(&options.packages, &format!("emoji-datasource-{vendor}"))?;
        let files = package.read(&[TABLE.to_owned(), image_folder(vendor)])?;
        let table = files
            .get(TABLE)
            .ok_or_else(|| Error::data(package.path(), format!("expected the file {TABLE}, found none")))?;
        let records = serde_json::from_slice(table)
            .map_err(|e| Error::data(package.path().join(TABLE), format!("expected a list of emoji: {e}")))?;
        if files.len() == 1 {
            let problem = format!("expected PNG images in {}, found none", image_folder(vendor));
            return Err(Error::data(package.path(), problem));
        }
        Ok(Style { vendor: vendor.to_owned(), package, records, files })
    }

    fn image(&self, record: &EmojiRecord) -> Option<(PathBuf, &[u8])> {
        let path = format!("{}{}", image_folder(&self.vendor), record.image);
        let png = self.files.get(&path)?;
        Some((self.package.path().join(path), png))
    }
}

fn image_folder(vendor: &str) -> String {
    format!("img/{vendor}/64/")
}
