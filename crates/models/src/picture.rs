//! A photographed or drawn digit as MNIST would have it.

use std::path::Path;

/// Side of an MNIST picture.
const SIDE: usize = 28;
/// MNIST scales a digit into a box of this side.
const BOX: f64 = 20.0;
/// Largest decoded picture in bytes.
const LIMIT: usize = 64 << 20;

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be read.
    #[error("cannot read the picture: {0}; check the path and its permissions")]
    Read(#[from] std::io::Error),
    /// The bytes are no PNG.
    #[error("not a readable PNG: {0}")]
    Png(#[from] png::DecodingError),
    /// Too large to decode.
    #[error("the picture has {width}x{height} pixels, which is too large; scale it down")]
    Large {
        /// Pixels to the right.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// Nothing is drawn on it.
    #[error("the picture is blank; a dark digit on a light ground, or the reverse, was expected")]
    Blank,
}

/// Luminance in `[0, 1]`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<f32>,
}

/// Reads a PNG and makes an MNIST digit of it: see [`Picture::to_digit`].
pub fn read_digit(path: &Path) -> Result<Vec<f32>, PictureError> {
    Picture::from_png(&std::fs::read(path)?)?.to_digit()
}

impl Picture {
    /// A picture from luminances in `[0, 1]`.
    ///
    /// # Panics
    /// If there are not `width * height` of them.
    pub fn new(width: usize, height: usize, pixels: Vec<f32>) -> Self {
        assert_eq!(pixels.len(), width * height, "one luminance for each pixel");
        Self { width, height, pixels }
    }

    /// Decodes a PNG of any colour type; transparent parts show white.
    pub fn from_png(bytes: &[u8]) -> Result<Self, PictureError> {
        let limits = png::Limits { bytes: LIMIT };
        let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), limits);
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info()?;
        let (width, height) = (reader.info().width, reader.info().height);
        let size = reader.output_buffer_size().filter(|&size| size <= LIMIT);
        let mut buffer = vec![0; size.ok_or(PictureError::Large { width, height })?];
        let frame = reader.next_frame(&mut buffer)?;
        let samples = frame.color_type.samples();
        // ITU-R BT.601 luma, on white.
        let luminance = |pixel: &[u8]| {
            let (light, alpha) = match *pixel {
                [grey] => (f32::from(grey), 255),
                [grey, alpha] => (f32::from(grey), alpha),
                [red, green, blue, ref alpha @ ..] => {
                    let light = 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue);
                    (light, alpha.first().copied().unwrap_or(255))
                }
                [] => unreachable!("a pixel has at least one sample"),
            };
            let alpha = f32::from(alpha) / 255.0;
            (light / 255.0 * alpha + 1.0 - alpha).clamp(0.0, 1.0)
        };
        let (width, height) = (frame.width as usize, frame.height as usize);
        let mut pixels = Vec::with_capacity(width * height);
        for row in buffer.chunks_exact(frame.line_size).take(height) {
            pixels.extend(row.chunks_exact(samples).take(width).map(luminance));
        }
        Ok(Self { width, height, pixels })
    }

    /// The picture as MNIST prepares digits: white on black, scaled into a 20x20 box with its proportions kept, centred
    /// in 28x28 by its centre of mass. A picture that is 28x28 already is only inverted where its ground is light.
    pub fn to_digit(&self) -> Result<Vec<f32>, PictureError> {
        let ink = self.ink()?;
        if (self.width, self.height) == (SIDE, SIDE) {
            return Ok(ink.pixels);
        }
        let (left, top, width, height) = ink.bounds().ok_or(PictureError::Blank)?;
        let scale = BOX / width.max(height) as f64;
        let small = ink.resample(left, top, width, height, scale);
        let mass: f64 = small.pixels.iter().map(|&p| f64::from(p)).sum();
        let centre = |coordinate: fn(usize, usize) -> usize| {
            let moment: f64 = small
                .pixels
                .iter()
                .enumerate()
                .map(|(i, &p)| f64::from(p) * (coordinate(i, small.width) as f64 + 0.5))
                .sum();
            moment / mass
        };
        // The small picture is at most 20 wide, its centre of mass inside: shifts are within [-6, 14] before clamping.
        let shift = |centre: f64, extent: usize| {
            ((SIDE as f64 / 2.0 - centre).round().max(0.0) as usize).min(SIDE - extent)
        };
        let x0 = shift(centre(|i, width| i % width), small.width);
        let y0 = shift(centre(|i, width| i / width), small.height);
        let mut digit = vec![0.0; SIDE * SIDE];
        for (y, row) in small.pixels.chunks_exact(small.width).enumerate() {
            digit[(y0 + y) * SIDE + x0..][..small.width].copy_from_slice(row);
        }
        Ok(digit)
    }

    /// Light ink on a dark ground: inverted if the border is light, the ground's grey taken off, the brightest made 1.
    fn ink(&self) -> Result<Self, PictureError> {
        let mut border: Vec<f32> = (0..self.height)
            .flat_map(|y| (0..self.width).map(move |x| (x, y)))
            .filter(|&(x, y)| x == 0 || y == 0 || x + 1 == self.width || y + 1 == self.height)
            .map(|(x, y)| self.pixels[y * self.width + x])
            .collect();
        border.sort_by(f32::total_cmp);
        let ground = *border.get(border.len() / 2).ok_or(PictureError::Blank)?;
        let sign = if ground > 0.5 { -1.0 } else { 1.0 };
        let mut pixels: Vec<f32> = self.pixels.iter().map(|p| (sign * (p - ground)).max(0.0)).collect();
        let brightest = pixels.iter().copied().fold(0.0, f32::max);
        if brightest < 0.05 {
            return Err(PictureError::Blank);
        }
        pixels.iter_mut().for_each(|p| *p /= brightest);
        Ok(Self { pixels, ..*self })
    }

    /// Left, top, width and height of what is clearly ink.
    fn bounds(&self) -> Option<(usize, usize, usize, usize)> {
        let strong = || self.pixels.iter().enumerate().filter(|(_, p)| **p > 0.25).map(|(i, _)| i);
        let columns = || strong().map(|i| i % self.width);
        let rows = || strong().map(|i| i / self.width);
        let (left, right) = (columns().min()?, columns().max()?);
        let (top, bottom) = (rows().min()?, rows().max()?);
        Some((left, top, right - left + 1, bottom - top + 1))
    }

    /// A part of the picture scaled, each new pixel the mean of the area it covers.
    fn resample(&self, left: usize, top: usize, width: usize, height: usize, scale: f64) -> Self {
        let new = |extent: usize| ((extent as f64 * scale).round() as usize).clamp(1, BOX as usize);
        let (new_width, new_height) = (new(width), new(height));
        // Weights of the old pixels under each new one, along one axis.
        let cover = |old: usize, new: usize| -> Vec<Vec<(usize, f32)>> {
            let step = old as f64 / new as f64;
            (0..new)
                .map(|i| {
                    let (begin, end) = (i as f64 * step, (i + 1) as f64 * step);
                    (begin as usize..(end.ceil() as usize).min(old))
                        .map(|j| (j, ((end.min(j as f64 + 1.0) - begin.max(j as f64)) / step) as f32))
                        .collect()
                })
                .collect()
        };
        let (columns, rows) = (cover(width, new_width), cover(height, new_height));
        let mut pixels = Vec::with_capacity(new_width * new_height);
        for row in &rows {
            for column in &columns {
                let line = |y: usize| -> f32 {
                    column.iter().map(|(x, w)| w * self.pixels[(top + y) * self.width + left + x]).sum()
                };
                pixels.push(row.iter().map(|&(y, w)| w * line(y)).sum());
            }
        }
        Self { width: new_width, height: new_height, pixels }
    }
}
