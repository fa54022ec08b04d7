//! Architectures of GPUs.

use std::fmt;
use std::str::FromStr;

/// Architecture of a GPU by its compute capability. A cubin made for one runs on it and on later ones of the same major
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    major: u32,
    minor: u32,
}

impl Arch {
    /// A100.
    pub const SM_80: Arch = Arch::new(8, 0);
    /// H100, H200.
    pub const SM_90: Arch = Arch::new(9, 0);
    /// B200.
    pub const SM_100: Arch = Arch::new(10, 0);

    /// The architecture with this compute capability.
    pub const fn new(major: u32, minor: u32) -> Arch {
        Arch { major, minor }
    }

    /// Compute capability as NVRTC counts it: 90 for 9.0.
    pub const fn number(self) -> u32 {
        10 * self.major + self.minor
    }

    /// Earlier architectures whose machine code it runs, the latest first.
    pub fn earlier(self) -> impl Iterator<Item = Arch> {
        (0..self.minor).rev().map(move |minor| Arch { major: self.major, minor })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}

/// A text is not the name of an architecture.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no GPU architecture; write it as in sm_90")]
pub struct ParseArchError(String);

impl FromStr for Arch {
    type Err = ParseArchError;

    fn from_str(text: &str) -> Result<Arch, ParseArchError> {
        let number = text.strip_prefix("sm_").and_then(|digits| digits.parse::<u32>().ok());
        let number = number.filter(|number| (50..1000).contains(number) && *text == format!("sm_{number}"));
        number.map(|n| Arch::new(n / 10, n % 10)).ok_or_else(|| ParseArchError(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_as_they_print() {
        for arch in [Arch::SM_80, Arch::SM_90, Arch::SM_100, Arch::new(12, 1)] {
            assert_eq!(arch.to_string().parse(), Ok(arch));
        }
        assert!(Arch::new(8, 2).earlier().eq([Arch::new(8, 1), Arch::SM_80]));
        for text in ["", "90", "sm_", "sm_9", "sm_090", "sm_+90", "sm_90a", "compute_90", "sm_99999999999"] {
            assert_eq!(text.parse::<Arch>(), Err(ParseArchError(text.to_string())));
        }
    }
}
