//! The text form of kernels: what `--dump assemble` and filetests show. It is printed only; the artifact file is the form
//! that is read.

use std::fmt::Write as _;

use cerium_artifact::kernel::{Body, Half, Instruction};
use cerium_artifact::{Function, Operand, Step, WeightRef};

/// Prints a function's schedule, one launch a line and one block a line below it.
///
/// ```text
/// func @main(p0 p1) -> (p0 p1), frame 2
///   ntt
///     p0: arg0 -> local0
/// ```
pub fn write(function: &Function) -> String {
    let mut out = String::new();
    let list = |primes: &[cerium_ckks::basis::PrimeIndex]| {
        primes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let _ = writeln!(
        out,
        "func @{}({}) -> ({}), frame {}",
        function.name,
        list(&function.args),
        list(&function.results),
        function.frame
    );
    for (i, p) in function.plaintexts.iter().enumerate() {
        let weight = match p.weight {
            WeightRef::Weight(id) => format!("weight {}", id.0),
            WeightRef::Param(index) => format!("weight parameter {index}"),
        };
        let _ = writeln!(
            out,
            "  plain{i} = {weight} rotated {} period 2^{} on {} at 2^{:.2}",
            p.rotation,
            p.log_period,
            p.basis,
            p.scale.log2()
        );
    }
    for step in &function.steps {
        match step {
            Step::Launch(kernel) => write_body(&mut out, &kernel.body),
            Step::Call { function, args, results, weights } => {
                let _ = writeln!(
                    out,
                    "  call function {} ({}) -> ({}), {} weights",
                    function.0,
                    operands(args),
                    operands(results),
                    weights.len()
                );
            }
        }
    }
    out
}

fn write_body(out: &mut String, body: &Body) {
    match body {
        Body::Elementwise { program, results, blocks } => {
            let program: Vec<String> = program
                .iter()
                .enumerate()
                .map(|(i, instruction)| format!("r{i}={}", show(instruction)))
                .collect();
            let results: Vec<String> = results.iter().map(|r| format!("r{r}")).collect();
            let _ = writeln!(out, "  elementwise {}; store {}", program.join("; "), results.join(" "));
            for block in blocks {
                let scalars: Vec<String> = block.scalars.iter().map(ToString::to_string).collect();
                let scalars = match scalars.as_slice() {
                    [] => String::new(),
                    scalars => format!(" with {}", scalars.join(" ")),
                };
                let (loads, stores) = (operands(&block.loads), operands(&block.stores));
                let _ = writeln!(out, "    {}: {loads} -> {stores}{scalars}", block.prime);
            }
        }
        Body::Ntt { blocks } | Body::Intt { blocks } => {
            let inverse = matches!(body, Body::Intt { .. });
            let _ = writeln!(out, "  {}", if inverse { "intt" } else { "ntt" });
            for block in blocks {
                let factor = if inverse { format!(" times {}", block.factor) } else { String::new() };
                let _ = writeln!(
                    out,
                    "    {}: {} -> {}{factor}",
                    block.prime,
                    operand(&block.load),
                    operand(&block.store)
                );
            }
        }
        Body::BaseConvert { blocks } => {
            let _ = writeln!(out, "  base_convert");
            for block in blocks {
                let side = |limbs: &[(cerium_ckks::basis::PrimeIndex, Operand)]| {
                    limbs.iter().map(|(p, o)| format!("{p}:{}", operand(o))).collect::<Vec<_>>().join(" ")
                };
                let _ = writeln!(out, "    {} -> {}", side(&block.sources), side(&block.targets));
            }
        }
        Body::Permute { blocks } => {
            let _ = writeln!(out, "  permute");
            for block in blocks {
                let (load, store) = (operand(&block.load), operand(&block.store));
                let _ = writeln!(out, "    {}: {load} -> {store} by {}", block.prime, block.galois);
            }
        }
    }
}

fn operands(list: &[Operand]) -> String {
    list.iter().map(operand).collect::<Vec<_>>().join(" ")
}

fn operand(operand: &Operand) -> String {
    match operand {
        Operand::Local(slot) => format!("local{slot}"),
        Operand::Arg(index) => format!("arg{index}"),
        Operand::Result(index) => format!("result{index}"),
        Operand::Plain { plaintext, limb } => format!("plain{plaintext}.{limb}"),
        Operand::Key { key, digit, half, prime } => {
            let half = match half {
                Half::B => "b",
                Half::A => "a",
            };
            format!("key{key}.{half}{digit}.{prime}")
        }
    }
}

fn show(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Load(i) => format!("load {i}"),
        Instruction::Add(a, b) => format!("r{a}+r{b}"),
        Instruction::Sub(a, b) => format!("r{a}-r{b}"),
        Instruction::Neg(a) => format!("-r{a}"),
        Instruction::Mul(a, b) => format!("r{a}*r{b}"),
        Instruction::MontMul(a, b) => format!("r{a}*r{b}/R"),
        Instruction::MulScalar(a, s) => format!("r{a}*s{s}"),
        Instruction::AddScalar(a, s) => format!("r{a}+s{s}"),
        Instruction::Dot(terms) => {
            let terms: Vec<String> = terms.iter().map(|(a, b)| format!("r{a}*r{b}")).collect();
            format!("({})/R", terms.join("+"))
        }
    }
}
