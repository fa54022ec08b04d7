//! Data sets and pictures: what is read, and what is said about what cannot be.

use cerium_models::data::Dataset;
use cerium_models::normalization::Normalization;
use cerium_models::picture::Picture;
use std::path::Path;

fn message(path: &Path) -> String {
    Dataset::open(path).expect_err("an error is expected").to_string()
}

fn idx(extents: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, extents.len() as u8];
    file.extend(extents.iter().flat_map(|e| e.to_be_bytes()));
    file.extend(bytes);
    file
}

fn png(width: u32, height: u32, color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    let mut writer = encoder.write_header().expect("a valid header");
    writer.write_image_data(pixels).expect("enough pixels");
    writer.finish().expect("memory");
    bytes
}

#[test]
fn idx_pairs_are_found_in_three_ways() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("written");
    write("t-images-idx3-ubyte", &idx(&[2, 1, 3], &[0, 51, 255, 1, 2, 3]));
    write("t-labels-idx1-ubyte", &idx(&[2], &[7, 1]));
    let sets =
        ["", "t-images-idx3-ubyte", "t"].map(|name| Dataset::open(&folder.path().join(name)).expect("valid"));
    assert_eq!(sets[0].shape(), [1, 1, 3]);
    assert_eq!(sets[0].input(0), [0.0, 0.2, 1.0]);
    assert_eq!((sets[0].label(1), sets[0].label(2)), (Some(1), None));
    assert!(sets[0] == sets[1] && sets[1] == sets[2]);

    // Digits are normalized where the network says so.
    let normalization = Normalization { mean: vec![0.2], deviation: vec![0.4] };
    let normalized = Dataset::open_with(folder.path(), Some(&normalization)).expect("valid");
    assert_eq!(normalized.input(0)[..2], [-0.5, 0.0]);

    write("t-labels-idx1-ubyte", &idx(&[3], &[7, 1, 1]));
    assert!(message(folder.path()).contains("3 labels"));
    write("t-images-idx3-ubyte", &idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 6]));
    assert!(message(folder.path()).contains("do not agree with 6 bytes"));
    write("t-images-idx3-ubyte", b"\0\0");
    assert!(message(folder.path()).contains("begins with 00 00 08 03"));
    write("u-images-idx3-ubyte", b"");
    assert!(message(folder.path()).contains("2 files with `images`"));
    assert!(message(&folder.path().join("absent")).contains("check the path"));
    write("notes.txt", b"");
    assert!(message(&folder.path().join("notes.txt")).contains("is no data set"));
}

#[test]
fn cifar10_batches() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("batch.bin");
    let mut record = vec![3];
    record.extend([[0; 1024], [128; 1024], [255; 1024]].concat());
    std::fs::write(&path, &record).expect("written");
    let data = Dataset::open(&path).expect("valid");
    assert_eq!((data.len(), data.label(0), data.shape()), (1, Some(3), &[3, 32, 32][..]));
    assert!((data.input(0)[0] + 0.4914 / 0.2470).abs() < 1e-6);
    assert!((data.input(0)[1024] - (128.0 / 255.0 - 0.4822) / 0.2435).abs() < 1e-6);
    // As the network says, if it does.
    let normalization = Normalization { mean: vec![0.5, 0.0, 1.0], deviation: vec![0.5, 1.0, 0.25] };
    let data = Dataset::open_with(&path, Some(&normalization)).expect("valid");
    assert_eq!([0, 1024, 2048].map(|pixel| data.input(0)[pixel]), [-1.0, 128.0 / 255.0, 0.0]);
    let error = Dataset::open_with(&path, Some(&Normalization::identity(1))).expect_err("another shape");
    assert!(
        error.to_string().contains("shape [3, 32, 32], but the network's normalization is for 1 channels"),
        "{error}"
    );
    record[0] = 10;
    std::fs::write(&path, &record).expect("written");
    assert!(message(&path).contains("label 10"));
    std::fs::write(&path, &record[1..]).expect("written");
    assert!(message(&path).contains("multiple of 3073"));
}

/// The same drawing as dark on light RGBA, light on dark grey, or shifted gives the same digit.
#[test]
fn pictures_become_centred_digits() {
    let (width, height) = (90usize, 70usize);
    // A vertical bar 10 wide and 40 tall.
    let bar = |x0: usize, y0: usize| {
        let inside =
            move |i: usize| (x0..x0 + 10).contains(&(i % width)) && (y0..y0 + 40).contains(&(i / width));
        (0..width * height).map(inside).collect::<Vec<bool>>()
    };
    let digit = |bytes: &[u8]| Picture::from_png(bytes).expect("a PNG").to_digit().expect("a digit");
    let rgba: Vec<u8> =
        bar(60, 20).iter().flat_map(|&ink| if ink { [10, 10, 40, 255] } else { [0, 0, 0, 0] }).collect();
    let grey: Vec<u8> = bar(5, 3).iter().map(|&ink| if ink { 200 } else { 30 }).collect();
    let a = digit(&png(90, 70, png::ColorType::Rgba, &rgba));
    let b = digit(&png(90, 70, png::ColorType::Grayscale, &grey));
    assert_eq!(a, b);
    // 5 wide and 20 tall in the middle of 28x28.
    for (i, &pixel) in a.iter().enumerate() {
        let (x, y) = (i % 28, i / 28);
        let inside = (12..17).contains(&x) && (4..24).contains(&y);
        assert_eq!(pixel, f32::from(u8::from(inside)), "at {x}, {y}");
    }
}

#[test]
fn a_picture_of_the_right_size_stays_as_it_is() {
    let mut pixels = vec![0.0f32; 784];
    pixels[400] = 1.0;
    pixels[401] = 0.5;
    let digit = Picture::new(28, 28, pixels.clone()).to_digit().expect("a digit");
    assert_eq!(digit, pixels);
    let inverted = pixels.iter().map(|p| 1.0 - p).collect();
    assert_eq!(Picture::new(28, 28, inverted).to_digit().expect("a digit"), pixels);
}

#[test]
fn pictures_that_cannot_be_used() {
    let error = |bytes: &[u8]| match Picture::from_png(bytes).and_then(|picture| picture.to_digit()) {
        Ok(_) => panic!("an error is expected"),
        Err(error) => error.to_string(),
    };
    assert!(error(&png(8, 8, png::ColorType::Grayscale, &[77; 64])).contains("blank"));
    assert!(error(b"GIF89a").contains("not a readable PNG"));
    // A header that promises 2^31 x 2^31 pixels.
    let mut huge = png(8, 8, png::ColorType::Grayscale, &[77; 64]);
    huge[16..24].fill(0x7f);
    assert!(!error(&huge).is_empty());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bad.png");
    std::fs::write(&path, b"GIF89a").expect("written");
    assert!(message(&path).contains("bad.png: not a readable PNG"));
}
