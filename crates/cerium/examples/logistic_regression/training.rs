//! Training of a logistic regression on encrypted examples.
//!
//! All examples lie in one ciphertext, one after another, each with as many slots as a power of two asks for (Kim, Song,
//! Kim, Lee and Cheon, "Logistic regression model training based on the approximate homomorphic encryption", BMC Medical
//! Genomics 2018): slot `row * width + column` holds `label * feature`. Weights repeat in every row. An inner product is a
//! sum over a row, a gradient one over all rows: sums by rotations, over the powers of two.
//!
//! Each iteration is one step of gradient descent with momentum (Polyak, 1964), from weights of zero:
//!
//! ```text
//! m <- MOMENTUM * m + RATE / rows * sum_i sigmoid(-z_i w) z_i,    w <- w + m
//! ```

use std::f64::consts::PI;

use cerium::artifact::NO_ELEMENT;
use cerium::ckks::params::Params;
use cerium::compiler::ciphertext::Slots;
use cerium::compiler::dsl::{Ct, Packing, Program, SourceProgram};

use super::table::Table;

const RATE: f64 = 2.0;
const MOMENTUM: f64 = 0.5;
/// Weights are held as multiples of this, so that slots stay small.
const UNIT: f64 = 4.0;
/// The sigmoid is approximated on [-RANGE, RANGE], by a polynomial of this degree.
const RANGE: f64 = 16.0;
const DEGREE: usize = 7;

/// Slots of a row: the numbers of an example and zeros.
fn width(table: &Table) -> usize {
    table.columns().next_power_of_two()
}

/// How many rows of so many numbers fit a ciphertext.
pub(crate) fn capacity(params: &Params, columns: usize) -> usize {
    params.slots() / columns.next_power_of_two()
}

/// The program: encrypted examples in, encrypted weights out. It says nothing about levels.
///
/// # Panics
/// If there are more examples than [`capacity`], or no iterations.
pub(crate) fn program(params: &Params, table: &Table, iterations: usize) -> SourceProgram {
    assert!(iterations > 0, "there must be an iteration");
    let (slots, width, columns) = (params.slots() as i64, width(table), table.columns());
    let p = Program::new("logistic regression", params);
    let z = p.input("examples", examples_packing(params, table));

    // Keeps the first slot of each row; the factor brings margins of [-RANGE, RANGE] to [-1, 1].
    let one = p.tensor("one", vec![1.0]);
    let first: Vec<u32> = (0..width).map(|column| if column == 0 { 0 } else { NO_ELEMENT }).collect();
    let mask = p.weight(one, &first, UNIT / RANGE);

    let series = sigmoid_series(RATE / (UNIT * table.rows.len() as f64));
    let step = p.function("step", 3, &[width], |_, values, masks| {
        let [z, w, m] = values else { unreachable!("it was declared with three") };
        let margins = sum(&(z * w), 1, width as i64).mul_weight(&masks[0]);
        let margins = sum(&margins, -1, -(width as i64));
        let gradient = sum(&(margins.poly_eval(&series) * z), width as i64, slots);
        let m = m * MOMENTUM + gradient;
        vec![w + &m, m]
    });

    // From weights of zero all margins are zero.
    let m = sum(&(&z * value_at_zero(&series)), width as i64, slots);
    let mut state = vec![m.clone(), m];
    for _ in 1..iterations {
        state = p.call(&step, &[&z, &state[0], &state[1]], &[&mask]);
    }
    let gather = (0..width).map(|column| if column < columns { column as u32 } else { NO_ELEMENT }).collect();
    let packing = Packing { shape: vec![columns as u32], batch: 1, gather, factor: UNIT, bound: 1.0 };
    p.output("weights", packing, &state[0]);
    p.finish()
}

/// `sum_j rotate(x, j)` for the multiples j of `from` below `to`, which is `from` times a power of two.
fn sum(x: &Ct, from: i64, to: i64) -> Ct {
    let (mut sum, mut by) = (x.clone(), from);
    while by != to {
        sum = &sum + sum.rotate(by);
        by *= 2;
    }
    sum
}

fn examples_packing(params: &Params, table: &Table) -> Packing {
    let (width, columns, rows) = (width(table), table.columns(), table.rows.len());
    assert!(
        rows <= capacity(params, columns),
        "{rows} examples of {columns} numbers do not fit a ciphertext"
    );
    let element = |slot: usize| match (slot / width, slot % width) {
        (row, column) if row < rows && column < columns => (row * columns + column) as u32,
        _ => NO_ELEMENT,
    };
    let gather = (0..params.slots()).map(element).collect();
    Packing { shape: vec![rows as u32, columns as u32], batch: 1, gather, factor: 1.0, bound: 1.0 }
}

/// The slots of the input.
pub(crate) fn input(params: &Params, table: &Table) -> Slots {
    let signed: Vec<f64> = table
        .rows
        .iter()
        .zip(&table.labels)
        .flat_map(|(row, label)| row.iter().map(move |x| label * x))
        .collect();
    let slot = |&element: &u32| signed.get(element as usize).copied().unwrap_or(0.0).into();
    examples_packing(params, table).gather.iter().map(slot).collect()
}

/// The weights in the slots of the output.
pub(crate) fn weights(table: &Table, slots: &Slots) -> Vec<f64> {
    slots[..table.columns()].iter().map(|slot| UNIT * slot.re).collect()
}

/// A promise about slots of the output as one about weights.
pub(crate) fn of_weights(error: f64) -> f64 {
    UNIT * error
}

/// Training without the library, with the sigmoid itself.
pub(crate) fn train_exactly(table: &Table, iterations: usize) -> Vec<f64> {
    let mut w = vec![0.0; table.columns()];
    let mut m = w.clone();
    for _ in 0..iterations {
        m.iter_mut().for_each(|m| *m *= MOMENTUM);
        for (row, label) in table.rows.iter().zip(&table.labels) {
            let margin = label * row.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>();
            let push = RATE / table.rows.len() as f64 * sigmoid(-margin);
            m.iter_mut().zip(row).for_each(|(m, x)| *m += push * label * x);
        }
        w.iter_mut().zip(&m).for_each(|(w, m)| *w += m);
    }
    w
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The Chebyshev series of `factor * sigmoid(-RANGE * x)` on [-1, 1], by interpolation in the roots of a much larger
/// Chebyshev polynomial, which is all but the series itself.
fn sigmoid_series(factor: f64) -> Vec<f64> {
    const NODES: usize = 512;
    let angle = |node: usize| PI * (node as f64 + 0.5) / NODES as f64;
    let value = |node: usize| factor * sigmoid(-RANGE * angle(node).cos());
    let coefficient = |k: usize| {
        let terms = (0..NODES).map(|node| value(node) * (k as f64 * angle(node)).cos());
        let share = if k == 0 { 1.0 } else { 2.0 };
        // The sigmoid less its value at 0 is odd.
        if k > 0 && k.is_multiple_of(2) { 0.0 } else { share / NODES as f64 * terms.sum::<f64>() }
    };
    (0..=DEGREE).map(coefficient).collect()
}

/// A series without even terms but the constant, at zero.
fn value_at_zero(series: &[f64]) -> f64 {
    series[0]
}
