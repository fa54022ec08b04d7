//! The table of named parameter sets.

use super::search::{Goal, LogP};

/// The named sets, by targets that the search meets within a few bits.
///
/// At scales of up to 2^30 a level is one prime; P is then a prime longer than the digits ask for, which
/// makes the noise of key switching vanish beside that of rescaling. At 2^40 there is precision to spare, and
/// P is no longer than a digit.
#[rustfmt::skip]
pub(super) const NAMED: &[(&str, Goal)] = &[
    // Shallow networks without bootstrapping.
    ("leveled-13", Goal { log_n: 13, log_base: 50, base_slack: 1, log_scale: 30, levels:  4, dnum: 6, log_p: LogP::Bits(42),  insecure: false }),
    ("leveled-14", Goal { log_n: 14, log_base: 50, base_slack: 1, log_scale: 30, levels:  9, dnum: 4, log_p: LogP::Bits(108), insecure: false }),
    ("leveled-15", Goal { log_n: 15, log_base: 60, base_slack: 1, log_scale: 40, levels: 15, dnum: 4, log_p: LogP::Bits(180), insecure: false }),
    // As large as 128-bit security allows. Three digits: four would give 33 levels, for keys a third larger and key
    // switches that take a sixth longer, that is more time a level.
    ("leveled-16", Goal { log_n: 16, log_base: 60, base_slack: 1, log_scale: 40, levels: 30, dnum: 3, log_p: LogP::Bits(480), insecure: false }),
    // Tests only: small and fast, with no security at all.
    ("insecure-test", Goal { log_n: 12, log_base: 60, base_slack: 1, log_scale: 40, levels: 9, dnum: 3, log_p: LogP::Beyond(6), insecure: true }),
];
