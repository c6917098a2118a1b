//! `colibri edge explain`: what a running edge knows of one blob, as a table for people or as JSON.

use std::io::Write;
use std::process::ExitCode;

use colibri_common::BlobId;
use http::Method;
use serde_json::Value;

use super::control::{Admin, ask};
use crate::progress::bytes;
use crate::serve::ServeError;
use crate::table::print_table;

/// Arguments of `edge explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: colibri edge explain 15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b\n\n\
                        It looks without touching: nothing is fetched. LAST MISS says why a unit was fetched when it came: \
                        never-seen since the edge started, evicted, failed before, or lost to damage."
)]
pub struct Explain {
    /// The blob: its merkle root, 64 hexadecimal digits
    pub hash: BlobId,
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object; sizes are bytes, times seconds since 1970
    #[arg(long)]
    pub json: bool,
}

/// Shows what an edge knows of a blob.
pub fn explain(args: &Explain, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let answer = ask(&args.admin, Method::GET, &format!("/explain/{}", args.hash), &Value::Null)?;
    if args.json {
        writeln!(out, "{answer}").map_err(ServeError::Output)?;
    } else {
        print(&answer, out).map_err(ServeError::Output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(answer: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let mut rows =
        vec![["FORM", "UNIT", "SIZE", "WHERE", "FROM", "LAST MISS", "LAST FAILURE"].map(str::to_owned).to_vec()];
    for form in list(&answer["forms"]) {
        rows.extend(list(&form["units"]).iter().map(|unit| row(form, unit)));
    }
    match rows.len() {
        1 => writeln!(
            out,
            "nothing is known of this blob in memory: it was not asked for since {}, or has been forgotten; what the disk \
             tier has of it shows when somebody asks for it",
            answer["remembers_since"]
        )?,
        _ => print_table(out, &rows)?,
    }
    for blame in list(&answer["blames"]) {
        writeln!(out, "blamed: {}", blame.as_str().unwrap_or_default())?;
    }
    for number in list(&answer["quarantined"]) {
        writeln!(out, "what was sent: colibri edge quarantine show {number}")?;
    }
    Ok(())
}

fn row(form: &Value, unit: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let places = [("in_memory", "memory"), ("on_disk", "disk"), ("in_flight", "in flight")];
    let places: Vec<&str> = places.into_iter().filter(|(key, _)| unit[key] == true).map(|(_, name)| name).collect();
    vec![
        text(&form["encoding"]),
        unit["unit"].to_string(),
        bytes(unit["bytes"].as_u64().unwrap_or(0)),
        if places.is_empty() { "nowhere".to_owned() } else { places.join(", ") },
        text(&unit["source"]),
        text(&unit["last_miss"]),
        text(&unit["failure"]),
    ]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn units_are_a_table_and_nothing_is_said_so() {
        let print = |answer: Value| {
            let mut out = Vec::new();
            super::print(&answer, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let unit = json!({
            "unit": 3, "bytes": 2_097_152, "in_memory": true, "on_disk": true, "in_flight": false,
            "source": "origin:8443", "last_miss": "evicted", "failure": null
        });
        let text = print(json!({
            "forms": [{ "encoding": "raw", "units": [] }, { "encoding": "type 1", "units": [unit] }],
            "blames": ["one:80 served bad bytes"],
            "quarantined": [17]
        }));
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..3], ["type", "1", "3"], "{text}");
        assert!(text.contains("memory, disk") && text.contains("origin:8443") && text.contains("evicted"), "{text}");
        assert!(text.contains("blamed: one:80") && text.contains("quarantine show 17"), "{text}");
        let none = print(json!({ "forms": [], "blames": [], "remembers_since": 17 }));
        assert!(none.contains("since 17"), "{none}");
    }
}
