//! `cargo xtask report`: the page of a load test in a real browser, light and dark: nothing on its console, nothing fetched, a picture of
//! each in `target/acceptance/report`.

use std::fs;
use std::path::Path;

use crate::acceptance::tools;
use crate::acceptance::work::{empty_dir, ensure, outcome, read};
use crate::run::{Failure, cargo, command, run};

const TOOLS: [(&str, &str); 1] = [("chromium", "apt-get install chromium")];

/// What must be on the page.
const PARTS: [&str; 11] = [
    "Rules and invariants",
    "Sessions per second",
    "Devices with the newest release",
    "Bytes by hop",
    "Where blobs came from",
    "Hit ratio and amplification",
    "Median to 99th percentile by step",
    "Median to 99th percentile by link",
    "Slowest sessions",
    "Steps, milliseconds",
    "Environment",
];

/// Words of Chromium when a page did something wrong.
const COMPLAINTS: [&str; 4] = [":CONSOLE(", "Uncaught", "Refused to", "Failed to load resource"];

/// Runs `release-wave`, which has several links, on servers of its own, and looks at its page.
pub fn report() -> Result<(), Failure> {
    tools::present(&TOOLS, "the report")?;
    run(cargo("build --release --locked -p colibri"))?;
    let dir = empty_dir("report")?;
    let page = dir.join("report.html");
    let mut measure = cargo(
        "run --release --locked --quiet -p colibri -- loadtest run release-wave --devices 60 --spawn --no-times --html",
    );
    measure.arg(&page);
    // The bound on the origin's share is for the whole fleet: sixty devices miss it, and the page says so.
    let status = measure.status().map_err(|error| error.to_string())?;
    ensure(matches!(status.code(), Some(0 | 1)), || format!("{measure:?} ended with {status}"))?;
    in_browser(&dir, &page)
}

/// Both colour schemes of a page.
fn in_browser(dir: &Path, page: &Path) -> Result<(), Failure> {
    let text = read(page)?;
    for part in PARTS {
        ensure(text.contains(part), || format!("the page has no `{part}`"))?;
    }
    let mut pictures = Vec::new();
    for (scheme, preferred) in [("light", "1"), ("dark", "0")] {
        let picture = dir.join(format!("report-{scheme}.png"));
        let words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
        let quiet =
            ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"];
        let mut chromium = command("timeout", ["110", "chromium"]);
        chromium.args(words).args(quiet).args(["--enable-logging=stderr", "--v=0", "--window-size=1000,3200"]);
        // 0 is dark, 1 is light.
        chromium.arg(format!("--blink-settings=preferredColorScheme={preferred}"));
        chromium.arg(format!("--user-data-dir={}", dir.join(format!("profile-{scheme}")).display()));
        chromium.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{}", page.display()));
        let (ended_well, said) = outcome(chromium)?;
        ensure(ended_well, || format!("Chromium says: {said}"))?;
        let complaint = said.lines().find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
        ensure(complaint.is_none(), || format!("the page in {scheme} has something on its console: {complaint:?}"))?;
        let bytes = fs::read(&picture).map_err(|error| format!("{}: {error}", picture.display()))?;
        ensure(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, || format!("{}: no picture", picture.display()))?;
        println!("== {scheme}: {} bytes in {}", bytes.len(), picture.display());
        pictures.push(bytes);
    }
    ensure(pictures[0] != pictures[1], || "the page is the same in light and dark".to_owned())
}
