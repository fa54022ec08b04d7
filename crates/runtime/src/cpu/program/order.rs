//! The order in which a program with automorphisms visits tiles.

/// The order of `2^log_tiles` tiles in which what one tile needs of others is needed again soon; `elements` are the Galois
/// elements of the automorphisms.
///
/// Tile `t` of a limb in the evaluation domain holds the evaluations at `psi^e` for the exponents
/// `e = 2 bitrev(t) + 1 mod 2^(log_tiles + 1)`; each such `e` is `5^a` or `-5^a`. The element `5^r` takes `a` to `a + r`. Rotations are
/// multiples of some power of two `s`, so tiles whose `a` are the same modulo `s` use only each other: they are visited one
/// after the other by growing `a`. Then of a limb that is read through rotations by `0, s, 2s, ...` each next tile needs one
/// tile that was not used before.
pub(in super::super) fn tile_order(log_tiles: u32, elements: &[u32]) -> Vec<u32> {
    let tiles = 1u32 << log_tiles;
    if log_tiles < 2 {
        return (0..tiles).collect();
    }
    // 5 generates the exponents 1 mod 4.
    let logarithms = tiles / 2;
    // v(a) = v(5^a - 1) - 2.
    let shift = |&g: &u32| (g.wrapping_sub(1).trailing_zeros().max(g.wrapping_add(1).trailing_zeros())) - 2;
    let stride = elements.iter().map(shift).min().map_or(1, |shift| 1 << shift.min(log_tiles - 1));
    let tile = |exponent: u32| ((exponent & (2 * tiles - 1)) >> 1).reverse_bits() >> (32 - log_tiles);
    let powers: Vec<u32> = std::iter::successors(Some(1u32), |power| Some(power.wrapping_mul(5)))
        .take(logarithms as usize)
        .collect();
    let classes = (0..stride).flat_map(|first| (first..logarithms).step_by(stride as usize));
    let classes: Vec<u32> = classes.map(|a| powers[a as usize]).collect();
    if elements.iter().any(|g| g % 4 == 3) {
        // Conjugations take 5^a to -5^a.
        return classes.iter().flat_map(|&power| [tile(power), tile(power.wrapping_neg())]).collect();
    }
    let negative = classes.iter().map(|power| power.wrapping_neg());
    classes.iter().copied().chain(negative).map(tile).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use cerium_ckks::automorphism::{Automorphism, conjugation_element, galois_element};

    /// Number of tiles that were not among those used for the last `window` tiles visited.
    fn misses(log_n: u32, log_tiles: u32, elements: &[u32], window: usize) -> usize {
        let automorphisms: Vec<_> = elements.iter().map(|&g| Automorphism::new(log_n, g)).collect();
        let len = 1usize << (log_n - log_tiles);
        let order = tile_order(log_tiles, elements);
        let sources = |&tile: &u32| -> HashSet<usize> {
            automorphisms.iter().map(|g| g.source(tile as usize * len, len)).collect()
        };
        let used: Vec<HashSet<usize>> = order.iter().map(sources).collect();
        let fresh = |i: usize| {
            let recent = &used[i.saturating_sub(window)..i];
            used[i].iter().filter(|tile| !recent.iter().any(|used| used.contains(tile))).count()
        };
        (0..used.len()).map(fresh).sum()
    }

    #[test]
    fn every_tile_once() {
        for log_tiles in 0..=8 {
            for elements in
                [vec![], vec![1], vec![5, 25], vec![galois_element(12, 8)], vec![conjugation_element(12), 5]]
            {
                let mut order = tile_order(log_tiles, &elements);
                order.sort_unstable();
                assert_eq!(order, (0..1 << log_tiles).collect::<Vec<u32>>(), "{elements:?}");
            }
        }
    }

    #[test]
    fn rotations_use_tiles_again() {
        for stride in [1, 2, 16, 64, 256] {
            let elements: Vec<u32> = (0..8).map(|i| galois_element(16, i * stride)).collect();
            // Eight tiles at the beginning of each class, one for each further tile.
            let classes = 2 * stride.min(64) as usize;
            let expected = if stride >= 64 { 128 } else { 128 + classes * 7 };
            let misses = misses(16, 7, &elements, 8);
            assert!(misses <= expected, "stride {stride}: {misses} tiles are fetched, {expected} expected");
        }
        let mut elements: Vec<u32> = (0..4).map(|i| galois_element(16, i)).collect();
        elements.push(conjugation_element(16));
        assert!(misses(16, 7, &elements, 8) <= 128 + 16);
    }
}
