//! The command line: neural networks on encrypted data, one verb a file in [`commands`].

mod commands;
mod figures;
mod files;
mod input;
mod measurement;
mod network;
mod prediction;
mod program;
mod progress;
mod speed;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do if standard error is closed as well.
            let _ = io::stderr().write_all(describe(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The chain of an error, each part once: some errors quote their cause.
fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!("  caused by: {cause}\n");
        }
    }
    if error.chain().any(is_out_of_space) && !text.contains("free some space") {
        text += "  help: free some space or write elsewhere, then run the command again; no half-written file was left\n";
    }
    text
}

fn is_out_of_space(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn every_part_of_an_error_is_said_once() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let quoting = io::Error::other(format!("cannot write x: {full}"));
        let error = Err::<(), _>(full).context(quoting.to_string()).context("keygen failed").unwrap_err();
        let text = describe(&error);
        assert!(text.starts_with("error: keygen failed\n  caused by: cannot write x: "), "{text}");
        assert_eq!(text.matches("caused by").count(), 1, "{text}");
        assert!(text.contains("help: free some space"), "{text}");
    }
}
