//! The text form of kernels: what `--dump assemble` and filetests show. It is printed only; the artifact file is the form
//! that is read.

use std::fmt::Write as _;

use cerium_artifact::kernel::{Block, Body, Half, Instruction, Program, Transform};
use cerium_artifact::{Function, Incoming, Movement, Operand, Outgoing, Step, WeightRef};

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
            Step::Call { function, args, results, weights, .. } => {
                let _ = writeln!(
                    out,
                    "  call function {} ({}) -> ({}), {} weights",
                    function.0,
                    operands(args),
                    operands(results),
                    weights.len()
                );
            }
            Step::Start(collective) => write_collective(&mut out, &collective.movement),
            Step::Finish(number) => {
                let _ = writeln!(out, "  finish {number}");
            }
        }
    }
    out
}

fn write_collective(out: &mut String, movement: &Movement) {
    match movement {
        Movement::Exchange { sends, receives } => {
            out.push_str("  start exchange\n");
            for Outgoing { to, prime, limb } in sends {
                let _ = writeln!(out, "    {prime}: {} -> {to}", operands(&[*limb]));
            }
            for Incoming { from, prime, limb } in receives {
                let _ = writeln!(out, "    {prime}: {from} -> {}", operands(&[*limb]));
            }
        }
        Movement::AllReduce { limbs } => {
            out.push_str("  start all_reduce\n");
            for (prime, limb) in limbs {
                let _ = writeln!(out, "    {prime}: {}", operands(&[*limb]));
            }
        }
    }
}

fn write_body(out: &mut String, body: &Body) {
    match body {
        Body::Elementwise { program, blocks } => {
            let _ = writeln!(out, "  elementwise {}", show_program(program));
            blocks.iter().for_each(|block| write_block(out, "    ", block));
        }
        Body::Ntt(transform) | Body::Intt(transform) => {
            let inverse = matches!(body, Body::Intt(_));
            let Transform { prologue, input, epilogue, blocks } = transform;
            let _ = write!(out, "  {}", if inverse { "intt" } else { "ntt" });
            if *prologue != Program::load() {
                let _ = write!(out, " of r{input} in {}", show_program(prologue));
            }
            if *epilogue != Program::input() {
                let _ = write!(out, " then {}", show_program(epilogue));
            }
            out.push('\n');
            blocks.iter().for_each(|block| write_block(out, "    ", block));
        }
        Body::BaseConvert { epilogue, blocks } => {
            let _ = write!(out, "  base_convert");
            if *epilogue != Program::input() {
                let _ = write!(out, " then {}", show_program(epilogue));
            }
            out.push('\n');
            for block in blocks {
                let sources = block.sources.iter().map(|(p, o)| format!("{p}:{}", operand(o)));
                let _ = writeln!(out, "    {}", sources.collect::<Vec<_>>().join(" "));
                block.targets.iter().for_each(|target| write_block(out, "      ", target));
            }
        }
    }
}

fn show_program(program: &Program) -> String {
    let instructions = program.instructions.iter().enumerate();
    let instructions: Vec<String> =
        instructions.map(|(i, instruction)| format!("r{i}={}", show(instruction))).collect();
    match program.results.as_slice() {
        [] => instructions.join("; "),
        results => {
            let results: Vec<String> = results.iter().map(|r| format!("r{r}")).collect();
            format!("{}; store {}", instructions.join("; "), results.join(" "))
        }
    }
}

fn write_block(out: &mut String, indent: &str, block: &Block) {
    let words = |kind: &str, words: &[u32]| match words {
        [] => String::new(),
        words => {
            format!(" {kind} {}", words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
    };
    let loads = match block.loads.as_slice() {
        [] => String::new(),
        loads => format!("{} ", operands(loads)),
    };
    let _ = writeln!(
        out,
        "{indent}{}: {loads}-> {}{}{}",
        block.prime,
        operands(&block.stores),
        words("with", &block.scalars),
        words("by", &block.galois)
    );
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
        Instruction::Input => "input".into(),
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
        Instruction::Permute(a, g) => format!("permute r{a} g{g}"),
    }
}
