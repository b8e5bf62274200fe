//! The `tollgate` binary: hands the command line to `tollgate::cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A stream that waits holds a few KiB here and there: in pages of 2 MiB that were more than twice as much
    // (idle 14.4 MB instead of 7.1, no less CPU an event). A kernel without the call goes on with its own choice.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    tollgate::cli::main(std::env::args_os())
}
