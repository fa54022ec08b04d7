//! The plain description of a parameter set: what is written into files, and checked once.

use serde::{Deserialize, Serialize};

use super::{BootstrapSpec, ParamsDigest};

/// The primes of one level: the contiguous part `start..end` of the pool Q.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    /// First prime of the window.
    pub start: u8,
    /// One past its last prime.
    pub end: u8,
}

/// Everything needed to rebuild a parameter set, unchecked. [`Params::new`](super::Params::new) checks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ParamsSpec {
    /// Name for people; starts with `insecure` exactly when `insecure` is set.
    pub name: String,
    /// Base-2 logarithm of the ring degree N, 4 to 17.
    pub log_n: u8,
    /// Base-2 logarithm of the scale at level 0; the scales of the other levels follow from the primes.
    pub log_scale: u8,
    /// Primes of Q in window order: terminal primes, then main primes.
    pub q: Vec<u32>,
    /// Auxiliary primes of key switching.
    pub p: Vec<u32>,
    /// Window of each level, level 0 first; the last one is all of Q.
    pub levels: Vec<Window>,
    /// Number of primes in each key-switching digit, in window order; they add up to the primes of Q.
    pub digits: Vec<u8>,
    /// The levels that bootstrapping uses, in a set that has levels for it.
    pub bootstrap: Option<BootstrapSpec>,
    /// The set gives up 128-bit security (tests only).
    pub insecure: bool,
}

impl ParamsSpec {
    /// Most bytes a name may have.
    pub const MAX_NAME: usize = 64;

    /// The canonical bytes of the description, the same on every machine: little-endian, every list preceded
    /// by its length. This is the payload of a parameter file and the text under the digest.
    ///
    /// ```text
    /// u8 log_n, u8 log_scale, u8 insecure (0 or 1),
    /// u8 name length, name in UTF-8,
    /// u8 primes of Q, u32 each; u8 primes of P, u32 each;
    /// u8 levels, (u8 start, u8 end) each; u8 digits, u8 each;
    /// u8 numbers about bootstrapping, 0 or 4: u8 slots_to_coeffs, u8 eval_mod, u8 coeffs_to_slots, u8 log_ratio
    /// ```
    ///
    /// Lengths above 255 are cut; no valid description has them.
    pub fn to_bytes(&self) -> Vec<u8> {
        fn length(len: usize) -> u8 {
            u8::try_from(len).unwrap_or(u8::MAX)
        }
        let mut out = vec![self.log_n, self.log_scale, u8::from(self.insecure)];
        out.push(length(self.name.len()));
        out.extend(self.name.bytes().take(255));
        for primes in [&self.q, &self.p] {
            out.push(length(primes.len()));
            out.extend(primes.iter().take(255).flat_map(|q| q.to_le_bytes()));
        }
        out.push(length(self.levels.len()));
        out.extend(self.levels.iter().take(255).flat_map(|w| [w.start, w.end]));
        out.push(length(self.digits.len()));
        out.extend(self.digits.iter().take(255));
        match self.bootstrap {
            Some(b) => out.extend([4, b.slots_to_coeffs, b.eval_mod, b.coeffs_to_slots, b.log_ratio]),
            None => out.push(0),
        }
        out
    }

    /// Reads [`to_bytes`](Self::to_bytes) back. `None` where the bytes end early, go on after the end, or
    /// hold no valid name; the contents are checked by [`Params::new`](super::Params::new).
    pub fn from_bytes(mut bytes: &[u8]) -> Option<ParamsSpec> {
        fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
            let (head, tail) = bytes.split_at_checked(len)?;
            *bytes = tail;
            Some(head)
        }
        fn byte(bytes: &mut &[u8]) -> Option<u8> {
            take(bytes, 1).map(|b| b[0])
        }
        fn words(bytes: &mut &[u8]) -> Option<Vec<u32>> {
            let len = usize::from(byte(bytes)?);
            let payload = take(bytes, 4 * len)?;
            Some(payload.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect())
        }
        let bytes = &mut bytes;
        let (log_n, log_scale) = (byte(bytes)?, byte(bytes)?);
        let insecure = match byte(bytes)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let name_len = usize::from(byte(bytes)?);
        let name = String::from_utf8(take(bytes, name_len)?.to_vec()).ok()?;
        let (q, p) = (words(bytes)?, words(bytes)?);
        let level_count = usize::from(byte(bytes)?);
        let windows = take(bytes, 2 * level_count)?;
        let levels = windows.chunks_exact(2).map(|w| Window { start: w[0], end: w[1] }).collect();
        let digit_count = usize::from(byte(bytes)?);
        let digits = take(bytes, digit_count)?.to_vec();
        let numbers = usize::from(byte(bytes)?);
        let bootstrap = match *take(bytes, numbers)? {
            [] => None,
            [slots_to_coeffs, eval_mod, coeffs_to_slots, log_ratio] => {
                Some(BootstrapSpec { slots_to_coeffs, eval_mod, coeffs_to_slots, log_ratio })
            }
            _ => return None,
        };
        let spec = ParamsSpec { name, log_n, log_scale, q, p, levels, digits, bootstrap, insecure };
        bytes.is_empty().then_some(spec)
    }

    /// Digest of the canonical bytes; every object made under a parameter set carries it.
    pub fn digest(&self) -> ParamsDigest {
        ParamsDigest(*blake3::hash(&self.to_bytes()).as_bytes())
    }
}
