//! The table of named parameter sets.

use super::BootstrapSpec;
use super::search::{Goal, LogP};

/// The sets for programs of any depth, by scale: what a level of the program costs against what it keeps.
///
/// All have 5 terminal and 42 main primes in Q and 12 primes in P, as many as 128-bit security allows, in four
/// digits. The levels of bootstrapping are as long as its precision needs, so that a smaller scale leaves more
/// levels to programs: 14, 18 or 23 above those of slots_to_coeffs.
pub(super) const BOOT: [Goal<'static>; 3] = [
    boot(40, 50, &[(17, 40), (5, 55), (3, 60), (4, 50)], 13),
    boot(35, 50, &[(21, 35), (8, 50), (4, 50)], 12),
    boot(30, 50, &[(26, 30), (8, 45), (3, 45), (1, 60)], 10),
];

const fn boot(log_scale: u8, log_base: u8, levels: &'static [(u8, u8)], log_ratio: u8) -> Goal<'static> {
    Goal {
        log_n: 16,
        log_base,
        base_slack: 0,
        log_scale,
        levels,
        dnum: 4,
        log_p: LogP::Bits(360),
        bootstrap: Some(BootstrapSpec { slots_to_coeffs: 3, eval_mod: 8, coeffs_to_slots: 4, log_ratio }),
        insecure: false,
    }
}

/// The twin of a set for tests, with no security.
const fn twin(goal: Goal<'static>) -> Goal<'static> {
    Goal { log_n: 12, insecure: true, ..goal }
}

/// The named sets, by targets that the search meets within a few bits.
///
/// At scales of up to 2^30 a level is one prime; P is then a prime longer than the digits ask for, which
/// makes the noise of key switching vanish beside that of rescaling. At 2^40 there is precision to spare, and
/// P is no longer than a digit.
#[rustfmt::skip]
pub(super) const NAMED: &[(&str, Goal<'static>)] = &[
    // Deep networks: the first is the choice where nothing speaks for another.
    ("boot-40", BOOT[0]),
    ("boot-35", BOOT[1]),
    ("boot-30", BOOT[2]),
    // Shallow networks without bootstrapping.
    ("leveled-13", Goal { log_n: 13, log_base: 50, base_slack: 1, log_scale: 30, levels: &[(4, 30)],  dnum: 6, log_p: LogP::Bits(42),  bootstrap: None, insecure: false }),
    ("leveled-14", Goal { log_n: 14, log_base: 50, base_slack: 1, log_scale: 30, levels: &[(9, 30)],  dnum: 4, log_p: LogP::Bits(108), bootstrap: None, insecure: false }),
    ("leveled-15", Goal { log_n: 15, log_base: 60, base_slack: 1, log_scale: 40, levels: &[(15, 40)], dnum: 4, log_p: LogP::Bits(180), bootstrap: None, insecure: false }),
    // As large as 128-bit security allows. Three digits: four would give 33 levels, for keys a third larger and key
    // switches that take a sixth longer, that is more time a level.
    ("leveled-16", Goal { log_n: 16, log_base: 60, base_slack: 1, log_scale: 40, levels: &[(30, 40)], dnum: 3, log_p: LogP::Bits(480), bootstrap: None, insecure: false }),
    // Tests only: small and fast, with no security at all.
    ("insecure-test", Goal { log_n: 12, log_base: 60, base_slack: 1, log_scale: 40, levels: &[(9, 40)], dnum: 3, log_p: LogP::Beyond(6), bootstrap: None, insecure: true }),
    ("insecure-boot-40", twin(BOOT[0])),
    ("insecure-boot-35", twin(BOOT[1])),
    ("insecure-boot-30", twin(BOOT[2])),
];
