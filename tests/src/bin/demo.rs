//! `make demo`: the main job of krb-broker, told step by step on real parts of this machine.

use std::{env, process::ExitCode};

use krb_tests::demo;

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        None => demo::sheltered(),
        Some(demo::INSIDE) => demo::tell(),
        Some(other) => {
            #[expect(clippy::print_stderr, reason = "there is no screen yet")]
            {
                eprintln!("demo: takes no argument, and was given {other:?}");
            }
            ExitCode::from(2)
        }
    }
}
