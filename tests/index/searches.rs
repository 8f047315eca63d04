//! Tests what is found.

use std::fs;

use super::{Place, name_of, printed};
use image::{Rgb, RgbImage};
use test_support::TestResult;

fn place() -> TestResult<Place> {
    let place = Place::new()?;
    for (name, color) in
        [("red.png", [220, 20, 30]), ("green.png", [20, 190, 40]), ("blue.png", [20, 40, 210])]
    {
        let path = place.path("photos").join(name);
        RgbImage::from_pixel(64, 48, Rgb(color)).save(&path)?;
        super::age(&path)?;
    }
    fs::create_dir(place.path("photos/wide"))?;
    RgbImage::from_pixel(300, 48, Rgb([200, 30, 30])).save(place.path("photos/wide/red.png"))?;
    place.add()?;
    Ok(place)
}

#[test]
fn filters_narrow_the_search() -> TestResult {
    let place = place()?;
    let found = |more: &[&str]| place.found(&[&["--image", "photos/red.png"], more].concat());
    assert_eq!(found(&[])?.len(), 4);
    assert_eq!(found(&["--limit", "2"])?, ["red.png", "red.png"]);
    assert_eq!(found(&["--folder", "photos/wide"])?, ["red.png"]);
    assert_eq!(found(&["--min-width", "65"])?, ["red.png"]);
    assert_eq!(found(&["--max-width", "64", "--max-height", "48"])?.len(), 3);
    assert_eq!(found(&["--max-height", "47"])?.len(), 0);
    assert_eq!(found(&["--after", "2000"])?.len(), 4);
    assert_eq!(found(&["--before", "2000-01"])?.len(), 0);
    for (arguments, said) in [
        (&["search", "red", "--folder", "elsewhere"][..], "note: no image of the index fits\n"),
        (
            &["duplicates", "--threshold", "1"],
            "note: no two images are that alike; a lower --threshold finds more\n",
        ),
    ] {
        let output = place.index(arguments)?;
        assert!(output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr)?, said);
    }
    let message = place.refused(&["search", "red", "--after", "yesterday"])?;
    assert!(message.starts_with("error: --after: expected a date such as"), "{message}");
    Ok(())
}

#[test]
fn texts_and_images_are_combined() -> TestResult {
    let place = place()?;
    let best = |arguments: &[&str]| -> TestResult<String> { Ok(place.found(arguments)?[0].clone()) };
    assert_eq!(best(&["--image", "photos/green.png"])?, "green.png");
    // What it is not like outweighs what it is like.
    let red = ["--image", "photos/red.png"];
    let alike = place.json(&[&["search"], &red[..]].concat())?;
    let unlike = place.json(&[&["search"], &red[..], &["--not", "red", "--not-weight", "3"]].concat())?;
    assert_eq!(name_of(&alike[0])?, "red.png");
    assert!(unlike[0]["score"].as_f64() < alike[0]["score"].as_f64());
    let zero = place.json(&["search", "red", "--image", "photos/blue.png", "--text-weight", "0"])?;
    assert_eq!(name_of(&zero[0])?, "blue.png");
    Ok(())
}

#[test]
fn the_page_shows_images_where_they_are() -> TestResult {
    let place = place()?;
    printed(&place.index(&["search", "<b>red", "--html", "found.html"])?);
    let page = fs::read_to_string(place.path("found.html"))?;
    assert_eq!(page.matches("loading=\"lazy\"").count(), 4);
    assert!(page.contains("&lt;b&gt;red") && page.contains("src=\"file:///") && page.contains("300 × 48"));
    assert!(!page.contains("base64"));
    Ok(())
}

#[test]
fn copies_and_near_duplicates_are_grouped() -> TestResult {
    let place = place()?;
    fs::copy(place.path("photos/blue.png"), place.path("photos/same.png"))?;
    let nearly = RgbImage::from_pixel(64, 48, Rgb([21, 190, 40]));
    nearly.save(place.path("photos/nearly green.png"))?;
    place.add()?;
    let groups = place.json(&["duplicates", "--threshold", "0.9999"])?;
    let groups = groups.as_array().ok_or("groups")?;
    let has = |name: &str| groups.iter().any(|group| name_of(&group[0]).is_ok_and(|found| found == name));
    assert!(has("blue.png") && has("green.png"), "{groups:?}");
    let copies = groups.iter().find(|group| group[0]["copies"] == 2);
    assert_eq!(copies.and_then(|group| group.as_array()).map(Vec::len), Some(1));
    let all = place.json(&["duplicates", "--threshold", "0"])?;
    assert!(
        all.as_array()
            .is_some_and(|groups| groups.iter().any(|group| group.as_array().is_some_and(|g| g.len() >= 2)))
    );
    Ok(())
}
