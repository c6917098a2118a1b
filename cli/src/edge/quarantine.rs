//! `colibri edge quarantine list|show`: what sources sent a running edge that was not what they were asked for.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::control::{Admin, ControlError, ask};
use crate::progress::bytes;
use crate::serve::ServeError;
use crate::table::print_table;

/// Bytes of a piece that are shown when they are not written to a file.
const SHOWN_BYTES: usize = 256;

/// Arguments of `edge quarantine`.
#[derive(Debug, clap::Args)]
pub struct Quarantine {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with bad pieces.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Lists the bad pieces that are kept: who sent them, for which blob, and where in it
    #[command(after_help = "Example: colibri edge quarantine list --admin http://edge7:9443\n\n\
                      None of it was stored or passed on. It is kept in memory, the newest of each source, until the edge ends.")]
    List(List),
    /// Shows one of them with its bytes
    #[command(after_help = "Example: colibri edge quarantine show 17 --out piece.bin --admin http://edge7:9443")]
    Show(Show),
}

/// Arguments of `edge quarantine list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object; sizes are bytes, times seconds since 1970
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `edge quarantine show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its number, from `list`
    pub number: u64,
    /// File for the bytes that were sent; without it, the first are printed
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object; the bytes are hexadecimal digits in `content`
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub fn quarantine(args: &Quarantine, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    match &args.verb {
        Verb::List(args) => {
            let answer = ask(&args.admin, Method::GET, "/quarantine", &Value::Null)?;
            if args.json { writeln!(out, "{answer}") } else { print_list(&answer, out) }.map_err(ServeError::Output)?;
        }
        Verb::Show(args) => {
            let answer = ask(&args.admin, Method::GET, &format!("/quarantine/{}", args.number), &Value::Null)?;
            let content = unhex(answer["content"].as_str().unwrap_or_default());
            if let Some(path) = &args.out {
                let failed = |error| ControlError::File { path: path.clone(), error };
                std::fs::write(path, &content).map_err(failed)?;
            }
            let shown = if args.out.is_some() { &[] } else { &content[..content.len().min(SHOWN_BYTES)] };
            if args.json { writeln!(out, "{answer}") } else { print_piece(&answer, shown, out) }
                .map_err(ServeError::Output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_list(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut rows =
        vec![["NUMBER", "SOURCE", "BLOB", "FORM", "OFFSET", "SIZE", "TIMES", "WHY"].map(str::to_owned).to_vec()];
    for piece in answer["pieces"].as_array().map_or(&[][..], Vec::as_slice) {
        let text = |key: &str| piece[key].as_str().unwrap_or("-").to_owned();
        rows.push(vec![
            piece["number"].to_string(),
            text("source"),
            text("blob"),
            text("encoding"),
            piece["offset"].to_string(),
            bytes(piece["piece_bytes"].as_u64().unwrap_or(0)),
            piece["times"].to_string(),
            text("detail"),
        ]);
    }
    match rows.len() {
        1 => writeln!(out, "nothing is in quarantine: no source sent bad bytes since this edge started"),
        _ => print_table(out, &rows),
    }
}

fn print_piece(piece: &Value, content: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let text = |key: &str| piece[key].as_str().unwrap_or("none").to_owned();
    writeln!(out, "from      {}, {} times, last at {}", text("source"), piece["times"], piece["last_at"])?;
    writeln!(out, "asked for blob {} ({}), offset {}", text("blob"), text("encoding"), piece["offset"])?;
    writeln!(out, "expected  {}", text("expected"))?;
    writeln!(out, "found     {}", text("found"))?;
    writeln!(out, "why       {}", text("detail"))?;
    writeln!(out, "size      {} bytes, of which {} are kept", piece["piece_bytes"], piece["kept_bytes"])?;
    for (line, part) in content.chunks(16).enumerate() {
        let digits: String = part.iter().map(|byte| format!(" {byte:02x}")).collect();
        let seen: String =
            part.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        writeln!(out, "{:08x} {digits:48}  {seen}", line * 16)?;
    }
    Ok(())
}

/// Digits that are none end it.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8);
    text.as_bytes().chunks(2).map_while(byte).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(print: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pieces_are_a_table_and_one_is_shown_with_its_bytes() {
        let piece = json!({
            "number": 17, "source": "origin:8443", "blob": "15ec", "encoding": "raw", "offset": 8192, "piece_bytes": 8192,
            "kept_bytes": 8192, "times": 3, "last_at": 1000, "expected": "aa", "found": null, "detail": "bad bytes: x",
            "content": "00414f"
        });
        let list = printed(|out| print_list(&json!({ "pieces": [piece] }), out));
        let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["17", "origin:8443", "15ec", "raw", "8192"], "{list}");
        let shown = printed(|out| print_piece(&piece, &unhex("00414f"), out));
        assert!(shown.contains("found     none") && shown.contains("00 41 4f"), "{shown}");
        assert!(shown.lines().last().unwrap().ends_with(".AO"), "{shown}");
        assert!(printed(|out| print_list(&json!({ "pieces": [] }), out)).contains("nothing"));
        assert_eq!(unhex("0x"), [0; 0]);
    }
}
