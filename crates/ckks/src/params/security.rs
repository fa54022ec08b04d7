//! The security bound: how large a modulus a ring of degree N can carry.

/// Largest log2(PQ) with at least 128 bits of classical security for a ternary secret and Gaussian error of
/// sigma 3.19, for N = 2^`log_n`; `None` for ring degrees outside the table, where nothing is secure.
///
/// Source: Bossuat et al., Security Guidelines for Implementing Homomorphic Encryption, ePrint 2024/463.
pub fn max_log_pq(log_n: u32) -> Option<f64> {
    Some(match log_n {
        11 => 53.0,
        12 => 106.0,
        13 => 214.0,
        14 => 430.0,
        15 => 868.0,
        16 => 1747.0,
        17 => 3523.0,
        _ => return None,
    })
}
