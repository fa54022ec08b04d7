//! Two operations in one: what the first makes need not be stored and loaded again.

use super::{Action, Factor, Operation, Source, Target, Two};

/// Joins operations that follow each other, where the second is the only one to read what the first makes.
pub(super) fn join(operations: Vec<Operation>) -> Vec<Operation> {
    let mut joined: Vec<Operation> = Vec::with_capacity(operations.len());
    for (at, operation) in operations.iter().enumerate() {
        let two = joined.last().and_then(|first| two(first, operation, &operations[at + 1..]));
        match two {
            Some(action) => {
                *joined.last_mut().expect("there is a first") = Operation { action, ..operation.clone() }
            }
            None => joined.push(operation.clone()),
        }
    }
    joined
}

/// The action of both operations, if they can be joined; `later` are those that follow.
fn two(first: &Operation, second: &Operation, later: &[Operation]) -> Option<Action> {
    let Target::Scratch(tile) = first.target else { return None };
    let made = Source::Scratch(tile);
    let action = match (&first.action, &second.action) {
        (&Action::Add(a, b), &Action::MulScalar(sum, c)) if sum == made => {
            Action::Two(Two::AddMulScalar, a, b, c)
        }
        (&Action::Sub(a, b), &Action::MulScalar(difference, c)) if difference == made => {
            Action::Two(Two::SubMulScalar, a, b, c)
        }
        (&Action::Mul(a, b), &Action::MulScalar(product, c)) if product == made => {
            Action::Two(Two::MulMulScalar, a, b, c)
        }
        (&Action::MulScalar(a, c), &Action::Add(x, y)) if (x == made) != (y == made) => {
            Action::Two(Two::MulScalarAdd, a, if x == made { y } else { x }, c)
        }
        (&Action::MulScalar(a, c), &Action::Sub(x, b)) if x == made && b != made => {
            Action::Two(Two::MulScalarSub, a, b, c)
        }
        _ => return None,
    };
    // The target may be a source of the first operation: word by word, what is read is read before it is written.
    (first.view == second.view && !reads_again(second, later, made)).then_some(action)
}

/// Whether what `second` read of a scratch tile is read again later.
fn reads_again(second: &Operation, later: &[Operation], made: Source) -> bool {
    let mut overwritten = second.target.source() == made;
    for operation in later {
        if overwritten {
            return false;
        }
        let mut read = false;
        operation.action.for_sources(&mut |source| read |= source == made);
        if read {
            return true;
        }
        let other = match operation.action {
            Action::DotPair(other, ..) => Some(other.source()),
            _ => None,
        };
        overwritten = operation.target.source() == made || other == Some(made);
    }
    false
}

impl Target {
    /// Where the words are that are written there.
    fn source(self) -> Source {
        match self {
            Target::Scratch(tile) => Source::Scratch(tile),
            Target::Swept(limb) => Source::Swept(limb),
            Target::Store(store) => Source::Store(store),
        }
    }
}

impl Action {
    /// Calls `visit` with every source.
    fn for_sources(&self, visit: &mut impl FnMut(Source)) {
        let factor = |factor: Factor, visit: &mut dyn FnMut(Source)| {
            if let Factor::Words(source) = factor {
                visit(source);
            }
        };
        match *self {
            Action::Expand(_) => {}
            Action::Copy(a) | Action::Neg(a) | Action::MulScalar(a, _) | Action::AddScalar(a, _) => visit(a),
            Action::Permute { from, .. } => visit(from),
            Action::Add(a, b)
            | Action::Sub(a, b)
            | Action::Mul(a, b)
            | Action::MontMul(a, b)
            | Action::Two(_, a, b, _) => {
                visit(a);
                visit(b);
            }
            Action::Dot(ref terms, ref added) => {
                for &(a, b) in terms {
                    visit(a);
                    factor(b, visit);
                }
                added.iter().for_each(|&source| visit(source));
            }
            Action::DotPair(_, ref terms, ref added) => {
                for &([a, b], c) in terms {
                    visit(a);
                    visit(b);
                    factor(c, visit);
                }
                added.iter().flatten().for_each(|&source| visit(source));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(target: Target, action: Action) -> Operation {
        Operation { target, view: 0, action }
    }

    fn names(operations: Vec<Operation>) -> Vec<Option<Two>> {
        let name = |operation: &Operation| match operation.action {
            Action::Two(two, ..) => Some(two),
            _ => None,
        };
        join(operations).iter().map(name).collect()
    }

    #[test]
    fn pairs_of_operations_are_joined() {
        let (a, b, x) = (Source::Load(0), Source::Load(1), Source::Scratch(0));
        let (first, second) = (Target::Scratch(0), Target::Store(0));
        for (one, other, two) in [
            (Action::Add(a, b), Action::MulScalar(x, 0), Two::AddMulScalar),
            (Action::Sub(a, b), Action::MulScalar(x, 0), Two::SubMulScalar),
            (Action::Mul(a, b), Action::MulScalar(x, 0), Two::MulMulScalar),
            (Action::MulScalar(a, 0), Action::Add(b, x), Two::MulScalarAdd),
            (Action::MulScalar(a, 0), Action::Add(x, b), Two::MulScalarAdd),
            (Action::MulScalar(a, 0), Action::Sub(x, b), Two::MulScalarSub),
        ] {
            assert_eq!(names(vec![operation(first, one), operation(second, other)]), [Some(two)]);
        }
        let not = [
            (Action::MulScalar(a, 0), Action::Sub(b, x)),
            (Action::MulScalar(a, 0), Action::Add(x, x)),
            (Action::Add(a, b), Action::MulScalar(a, 0)),
        ];
        for (one, other) in not {
            assert_eq!(names(vec![operation(first, one), operation(second, other)]), [None; 2]);
        }
    }

    #[test]
    fn what_is_read_again_is_kept() {
        let (a, b, x) = (Source::Load(0), Source::Load(1), Source::Scratch(0));
        let start = || {
            vec![
                operation(Target::Scratch(0), Action::Sub(a, b)),
                operation(Target::Store(0), Action::MulScalar(x, 0)),
            ]
        };
        let with = |action, target| {
            let mut operations = start();
            operations.push(operation(target, action));
            names(operations)
        };
        assert_eq!(with(Action::Neg(x), Target::Store(1)), [None; 3]);
        assert_eq!(with(Action::Neg(a), Target::Store(1)), [Some(Two::SubMulScalar), None]);
        // Another value in the same tile.
        let mut operations = start();
        operations.push(operation(Target::Scratch(0), Action::Neg(a)));
        operations.push(operation(Target::Store(1), Action::Neg(x)));
        assert_eq!(names(operations), [Some(Two::SubMulScalar), None, None]);
    }
}
