//! What programs are compiled to; that they compute the right words is shown by random programs in `tests`.

use cerium_artifact::kernel::Instruction::{self, Add, Dot, Load, MulScalar, Permute, Sub};

use super::compile::Compilation;
use super::{Action, LoadKind, Operation, Source, Target, TileProgram};

fn compile(
    instructions: &[Instruction],
    results: &[u16],
    loads: &[LoadKind],
    overwrites: &[Vec<Source>],
) -> TileProgram {
    TileProgram::compile(&Compilation { instructions, results, loads, overwrites, whole: true })
}

/// Terms of the sums, negative for two at once.
fn sums(program: &TileProgram) -> Vec<isize> {
    let sum = |operation: &Operation| match &operation.action {
        Action::Dot(terms, _) => Some(terms.len() as isize),
        Action::DotPair(_, terms, _) => Some(-(terms.len() as isize)),
        _ => None,
    };
    program.sweeps.iter().chain(&program.operations).filter_map(sum).collect()
}

#[test]
fn products_with_keys_are_swept() {
    use LoadKind::{Key, Limb};
    // Two digits (loads 0, 1); the keys of the halves are loaded when they are needed; c0 is added to one half.
    let instructions = [
        Load(0),
        Load(1),
        Load(2),
        Load(3),
        Dot(vec![(0, 2), (1, 3)]),
        Load(6),
        Add(4, 5),
        Permute(6, 0),
        Load(4),
        Load(5),
        Dot(vec![(8, 0), (9, 1)]),
        Permute(10, 0),
    ];
    let loads = [Limb, Limb, Key, Key, Key, Key, Limb];
    let compilation = Compilation {
        instructions: &instructions,
        results: &[7, 11, 10],
        loads: &loads,
        overwrites: &[vec![], vec![], vec![]],
        whole: true,
    };
    let program = TileProgram::compile(&compilation);
    // Both halves in one sweep, which reads the digits once, with c0 added. The second half is a result as it is.
    assert_eq!((sums(&program), program.sweeps.len(), program.views.len()), (vec![-2], 1, 1));
    assert_eq!((program.sweeps[0].target, program.scratch_limbs), (Target::Swept(0), 1));
    let Action::DotPair(Target::Store(2), _, [own, other]) = &program.sweeps[0].action else {
        panic!("{:?}", program.sweeps)
    };
    assert_eq!((&own[..], &other[..]), (&[Source::Load(6)][..], &[][..]));
    let [own, other] = &program.operations[..] else { panic!("{:?}", program.operations) };
    assert!(matches!(own.action, Action::Permute { from: Source::Swept(0), .. }));
    assert!(matches!(other.action, Action::Permute { from: Source::Store(2), .. }));
    // What is read elsewhere is not joined.
    let instructions = instructions.iter().cloned().chain([MulScalar(4, 0)]).collect::<Vec<_>>();
    let results = [7, 11, 10, 12];
    let overwrites = vec![vec![]; 4];
    let program = TileProgram::compile(&Compilation {
        instructions: &instructions,
        results: &results,
        overwrites: &overwrites,
        ..compilation
    });
    assert!(
        program.operations.iter().any(|o| matches!(o.action, Action::Add(Source::Swept(_), Source::Load(6))))
    );
    // Over what only the sweep reads, not over what is read later.
    let over = [vec![], vec![], vec![Source::Load(6)], vec![]];
    let program = TileProgram::compile(&Compilation { overwrites: &over[..3], ..compilation });
    assert_eq!((program.sweeps.len(), program.scratch_limbs), (1, 1));
    let later = compilation.instructions.iter().cloned().chain([MulScalar(5, 0)]).collect::<Vec<_>>();
    let program = TileProgram::compile(&Compilation {
        instructions: &later,
        results: &results,
        overwrites: &over,
        ..compilation
    });
    assert_eq!((program.sweeps.len(), program.scratch_limbs), (1, 2));
    // And not where only parts of limbs are there.
    let program = TileProgram::compile(&Compilation { whole: false, ..compilation });
    assert!(!program.sweeps() && program.scratch_limbs == 0 && program.operations.len() > 3);
}

/// Parts of a kernel that have only keys in common are programs of their own.
#[test]
fn only_sums_that_results_need_are_swept() {
    use LoadKind::{Key, Limb};
    let instructions =
        [Load(0), Load(1), Load(2), Dot(vec![(0, 2)]), Dot(vec![(1, 2)]), Load(3), Add(3, 5), Add(4, 5)];
    let loads = [Limb, Limb, Key, Limb];
    let both = compile(&instructions, &[6, 7], &loads, &[vec![], vec![]]);
    assert_eq!((sums(&both), both.operations.len()), (vec![-1], 0));
    for (result, load) in [(6, 0), (7, 1)] {
        let part = compile(&instructions, &[result], &loads, &[vec![]]);
        let [Operation { action: Action::Dot(terms, addends), .. }] = &part.sweeps[..] else {
            panic!("{:?}", part.sweeps)
        };
        assert_eq!((terms[0].0, &addends[..]), (Source::Load(load), &[Source::Load(3)][..]));
        assert!(part.operations.is_empty());
    }
}

#[test]
fn a_multiple_that_is_added_to_many_sweeps_is_computed_once() {
    use LoadKind::{Key, Limb};
    // Two rotations of c0 times a scalar plus a key product, as linear transforms have them.
    let instructions = [
        Load(0),
        Load(1),
        Load(2),
        Load(3),
        MulScalar(1, 0),
        Dot(vec![(0, 2)]),
        Add(5, 4),
        Permute(6, 0),
        Dot(vec![(0, 3)]),
        Add(4, 8),
        Permute(9, 1),
        Add(7, 10),
    ];
    let program = compile(&instructions, &[11], &[Limb, Limb, Key, Key], &[vec![]]);
    let [multiple, sums] = &program.sweeps[..] else { panic!("{:?}", program.sweeps) };
    assert!(matches!(multiple.action, Action::MulScalar(Source::Load(1), 0)));
    let Action::DotPair(_, _, [own, other]) = &sums.action else { panic!("{sums:?}") };
    assert_eq!((&own[..], &other[..]), (&[Source::Swept(0)][..], &[Source::Swept(0)][..]));
    assert_eq!((program.operations.len(), program.scratch_limbs), (3, 3));
}

#[test]
fn plaintexts_are_read_once_for_both_halves() {
    use LoadKind::{Compact, Limb};
    // b1 p1 + b2 p2, then the same of b1' and b2', which is a pair with the first; and a sum that waits for its factor.
    let dots = |late: bool| {
        vec![
            Load(0),
            Load(1),
            Load(2),
            Load(3),
            Load(4),
            Load(5),
            Dot(vec![(0, 4), (1, 5)]),
            if late { MulScalar(6, 0) } else { MulScalar(2, 0) },
            Dot(vec![(7, 4), (3, 5)]),
        ]
    };
    let loads = [Limb, Limb, Limb, Limb, Compact, Compact];
    let overwrites = [vec![], vec![]];
    assert_eq!(sums(&compile(&dots(false), &[6, 8], &loads, &overwrites)), [-2]);
    // The second sum depends on the first.
    assert_eq!(sums(&compile(&dots(true), &[6, 8], &loads, &overwrites)), [2, 2]);
    // A compact plaintext as the factor that differs would have to be unfolded.
    let loads = [Compact, Limb, Limb, Limb, Limb, Limb];
    assert_eq!(sums(&compile(&dots(false), &[6, 8], &loads, &overwrites)), [2, 2]);
}

/// A sum of many terms is made in parts, of which only the first may read what the sum is stored over.
#[test]
fn parts_of_a_sum_read_nothing_that_the_first_has_stored_over() {
    use LoadKind::{Key, Limb};
    // Two sums of 12 terms with keys in common; the first is stored over a limb of its last term.
    let terms = 12;
    let mut instructions: Vec<Instruction> = (0..3 * terms).map(Load).collect();
    instructions.push(Dot((0..terms).map(|i| (i, i + 2 * terms)).collect()));
    instructions.push(Dot((0..terms).map(|i| (i + terms, i + 2 * terms)).collect()));
    let loads: Vec<LoadKind> = (0..3 * terms).map(|i| if i < 2 * terms { Limb } else { Key }).collect();
    for over in [vec![], vec![Source::Load(terms - 1)], vec![Source::Load(2 * terms - 1)]] {
        let results = [3 * terms, 3 * terms + 1];
        let program = compile(&instructions, &results, &loads, &[over.clone(), vec![]]);
        assert!(program.sweeps.len() > 1, "{:?}", program.sweeps);
        let mut read = 0;
        for (at, sweep) in program.sweeps.iter().enumerate() {
            assert_eq!(sweep.target, Target::Store(0));
            let Action::DotPair(Target::Store(1), terms, _) = &sweep.action else { panic!("{sweep:?}") };
            let overwritten = terms.iter().flat_map(|(own, _)| own).any(|source| over.contains(source));
            assert_eq!(overwritten, at == 0 && !over.is_empty());
            read += terms.len();
        }
        assert_eq!(read, usize::from(terms));
    }
}

#[test]
fn results_wait_for_what_they_overwrite() {
    let instructions = [Load(0), Load(1), Add(0, 1), Sub(0, 2)];
    let targets = |overwrites: &[Vec<Source>]| -> Vec<bool> {
        let program = compile(&instructions, &[2, 3], &[LoadKind::Limb; 2], overwrites);
        program.operations.iter().map(|operation| matches!(operation.target, Target::Store(_))).collect()
    };
    assert_eq!(targets(&[vec![], vec![]]), [true, true]);
    // Load 1 is read by the first operation, and may be stored over by the second; load 0 is read by both.
    assert_eq!(targets(&[vec![], vec![Source::Load(1)]]), [true, true]);
    assert_eq!(targets(&[vec![Source::Load(0)], vec![]]), [false, true, true]);
    assert_eq!(targets(&[vec![], vec![Source::Load(0)]]), [true, false, true]);
}

#[test]
fn a_limb_that_stays_where_it_is_costs_nothing() {
    let keep = compile(&[Load(0)], &[0], &[LoadKind::Limb], &[vec![Source::Load(0)]]);
    assert!(keep.operations.is_empty());
    // Two that change places are saved first.
    let swap = [vec![Source::Load(1)], vec![Source::Load(0)]];
    let swap = compile(&[Load(0), Load(1)], &[0, 1], &[LoadKind::Limb; 2], &swap);
    let scratch = swap.operations.iter().map(|operation| matches!(operation.target, Target::Scratch(_)));
    assert_eq!(scratch.collect::<Vec<_>>(), [true, true, false, false]);
}
