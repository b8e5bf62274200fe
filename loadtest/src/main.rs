//! Entry point: hands the arguments to `cli` and turns its outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollgate_load::cli::main()
}
