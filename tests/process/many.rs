//! More streams than the soft limit of open files allows: the process raises it by itself.

use crate::cli::Directory;
use crate::process::gateway::{Gateway, config};
use crate::process::scaled;
use crate::process::streams::{Callers, Plan, provider, run};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn one_worker_holds_more_streams_than_the_soft_limit_of_files_allows() {
    let (wanted, soft, events) = scaled((150, 64, 3), (10_000, 1024, 2));
    // This process holds both far ends of every stream, the gateway both near ones.
    let files = raise_file_limit(2 * wanted + SPARE_FILES);
    let streams = wanted.min((files - SPARE_FILES) / 2);
    if streams < wanted {
        eprintln!("only {streams} streams of {wanted}: the hard limit of open files is {files}");
    }
    run(async {
        let mut command = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_tollgate");
        command.env_clear().args(["-c", &format!("ulimit -Sn {soft} && exec \"$0\" \"$@\""), binary]);
        let text = config(provider().await, "[log]\naccess = \"off\"\n");
        let text = text.replace("kind = \"openai\"", "kind = \"openai\"\nconnections_max = 16_000");
        let gateway = Gateway::start_by(command, Directory::new(), &text, Stdio::null());
        let idle_kb = gateway.rss_kb();
        let callers = Callers::default();
        let mut work = Vec::new();
        for number in 0..streams {
            // All are open together for some seconds.
            let gap = Duration::from_millis(scaled(400, 60_000));
            work.push(callers.spawn(gateway.address, Plan { number, events, gap }));
            if number % 500 == 499 {
                callers.have_begun(number as usize + 1).await;
            }
        }
        callers.have_begun(streams as usize).await;
        let metrics = gateway.metrics();
        let open = ["tollgate_requests_active", "tollgate_connections_open", "tollgate_upstream_open"];
        assert_eq!(open.map(|name| metrics[name]), [streams as f64; 3]);
        let kb = gateway.rss_kb() - idle_kb;
        eprintln!("{streams} streams open with {:.1} KB each", kb as f64 / streams as f64);
        for caller in work {
            caller.await.unwrap().expect("the whole stream");
        }
        gateway.check_calm();
        assert_eq!(gateway.metrics()["tollgate_accepts_failed_total"], 0.0);
    });
}

/// What else is open in either process.
const SPARE_FILES: u64 = 200;

/// Raises this process's limit of open files as far as it may and is wanted. What it is then.
fn raise_file_limit(wanted: u64) -> u64 {
    let hard = getrlimit(Resource::Nofile).maximum;
    for maximum in [hard.map(|hard| hard.max(wanted)), hard] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            return maximum.unwrap_or(u64::MAX);
        }
    }
    panic!("the soft limit of open files cannot be raised to the hard one, {hard:?}");
}
