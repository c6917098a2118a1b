//! Signals end a child process: the first asks, the second insists.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use colibri_service::shutdown_signal;

const CHILD: &str = "COLIBRI_TEST_SIGNAL_CHILD";

/// Not a test by itself: what the children run.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut signal = std::pin::pin!(shutdown_signal());
        // One poll installs the handlers.
        tokio::select! { biased; _ = &mut signal => {}, () = std::future::ready(()) => {} }
        println!("waiting");
        println!("got {}", signal.await);
        std::future::pending::<()>().await;
    });
}

fn start() -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "waiting");
    (child, output)
}

fn wait_for(output: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended before it said {text}");
    }
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn the_first_signal_asks_and_the_second_insists() {
    for (first, name, second) in [("-TERM", "got SIGTERM", "-INT"), ("-INT", "got SIGINT", "-TERM")] {
        let (mut child, mut output) = start();
        send(&child, first);
        wait_for(&mut output, name);
        send(&child, second);
        assert_eq!(child.wait().unwrap().code(), Some(1), "the second signal ends the process at once");
    }
}
