//! What the pixels of pictures become before a network sees them.

pub use cerium_artifact::Normalization;

/// Mean and standard deviation of each channel.
pub type Statistics = ([f32; 3], [f32; 3]);

/// Those of CIFAR-10's training set, with which its networks are usually trained.
pub const CIFAR10: Statistics = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
/// Those of ImageNet, with which networks for other pictures are often trained too.
pub const IMAGENET: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// What [`parse`] accepts.
pub const FORMS: &str = "`cifar10`, `imagenet`, `none`, or numbers for each channel, MEAN,../DEVIATION,..";

/// Normalization by these statistics.
pub fn of((mean, deviation): Statistics) -> Normalization {
    Normalization { mean: mean.to_vec(), deviation: deviation.to_vec() }
}

/// Reads a normalization for pictures of `channels` channels: a name, or `0.485,0.456,0.406/0.229,0.224,0.225`.
///
/// # Errors
/// In words: what is wrong, and what is accepted.
pub fn parse(text: &str, channels: usize) -> Result<Normalization, String> {
    let numbers = |list: &str| {
        let number = |field: &str| {
            field.trim().parse().map_err(|_| format!("{field:?} is no number; accepted are {FORMS}"))
        };
        list.split(',').map(number).collect::<Result<Vec<f32>, _>>()
    };
    let normalization = match text {
        "none" => Normalization::identity(channels),
        "cifar10" => of(CIFAR10),
        "imagenet" => of(IMAGENET),
        _ => match text.split_once('/') {
            Some((mean, deviation)) => Normalization { mean: numbers(mean)?, deviation: numbers(deviation)? },
            None => return Err(format!("{text:?} is not known; accepted are {FORMS}")),
        },
    };
    match normalization.problem() {
        Some(problem) => Err(problem),
        None if normalization.channels() != channels => Err(format!(
            "it is for {} channels, but the network's input has {channels}",
            normalization.channels()
        )),
        None => Ok(normalization),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse("imagenet", 3), parse("0.485,0.456,0.406/0.229, 0.224,0.225", 3));
        let mut values = [0.0, 0.5, 1.0, 2.0];
        parse("0.5,1/0.25,2", 2).expect("two channels").apply(&mut values, 1);
        assert_eq!(values, [-2.0, -0.25, 2.0, 0.5]);
        parse("none", 4).expect("any channels").apply(&mut values, 1);
        assert_eq!(values, [-2.0, -0.25, 2.0, 0.5]);
        for (text, problem) in [
            ("mnist", "not known; accepted are `cifar10`"),
            ("a/1", "\"a\" is no number"),
            ("1,2/1", "2 means and 1 deviations"),
            ("1/0", "deviation is 0"),
            ("inf/1", "mean is inf"),
            ("cifar10", "for 3 channels, but the network's input has 1"),
        ] {
            let error = parse(text, 1).expect_err("an error is expected");
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
