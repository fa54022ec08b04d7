//! The text form is read from people: whatever stands there gives a module or an error with its line, never a panic.

use std::path::Path;
use std::sync::Arc;

use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{Ciphertext, Context, Data};
use cerium_compiler::ir::{Dialect, text};
use cerium_compiler::limb::Limb;
use cerium_compiler::polynomial::Polynomial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn read<D: Dialect<Context = Context>>(text: &str, context: &Context) {
    match text::read::<D>(text, context.clone()) {
        Ok(module) => module.verify().expect("what the parser accepts is well formed"),
        Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count().max(1), "{error}"),
    }
}

#[test]
fn damaged_text_gives_an_error() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let params = Params::named_insecure("insecure-test").unwrap();
    let context = Context { params, data: Arc::new(Data::default()) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let symbols: Vec<char> = "%@(){}[]<>=,: \n-0123456789abceLprt.#\"".chars().collect();
    for level in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(level.unwrap().path()).unwrap() {
            let original: Vec<char> =
                std::fs::read_to_string(file.unwrap().path()).unwrap().chars().collect();
            for _ in 0..60 {
                let mut damaged = original.clone();
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..damaged.len().max(1));
                    if at >= damaged.len() {
                        break;
                    }
                    match rng.random_range(0..3) {
                        0 => damaged[at] = symbols[rng.random_range(0..symbols.len())],
                        1 => drop(damaged.remove(at)),
                        _ => damaged.truncate(at.max(1)),
                    }
                }
                let damaged: String = damaged.into_iter().collect();
                read::<Ciphertext>(&damaged, &context);
                read::<Polynomial>(&damaged, &context);
                read::<Limb>(&damaged, &context);
            }
        }
    }
}
