//! `colibri file-hash`: merkle roots of plain files.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::files::{self, FilesError};

/// Prints the merkle root of each file, `HASH  PATH` per line.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The merkle root of a file's content is its blob's name everywhere. A file that fails is named on standard \
    error; the others go on, and the exit code is 1.\n\nExample:\n  colibri file-hash out/meta.far"
)]
pub struct Args {
    /// Files to hash
    pub paths: Vec<PathBuf>,
    /// Print a JSON array of {path, hash, size}; the first failure then fails the command
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    let mut rows = Vec::new();
    let code = files::for_each_path(&args.paths, args.json, |path| {
        let tree = files::tree_of(path)?;
        if args.json {
            rows.push(json!({ "path": path.display().to_string(), "hash": tree.id, "size": tree.length.bytes() }));
            return Ok(());
        }
        Ok(writeln!(out, "{}  {}", tree.id, path.display())?)
    })?;
    if args.json {
        files::print_json(out, &rows.into())?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::{Fixture, printed};

    #[test]
    fn golden_hashes_in_the_order_of_the_arguments() {
        let dir = Fixture::new(&[("empty", b""), ("hello", b"Hello world!")]);
        dir.write("digits", "0123456789".repeat(1024).as_bytes());
        let paths = ["empty", "hello", "digits"].map(|name| dir.path(name)).to_vec();
        let (code, text) = printed(|out| run(&Args { paths: paths.clone(), json: false }, out));
        let hashes = [
            "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b",
            "e6a73dbd2d88e51ccdaa648cbf49b3939daac8a3e370169bc85e0324a41adbc2",
            "f5a0dff4578d0150d3dace71b08733d5cd8cbe63a322633445c9ff0d9041b9c4",
        ];
        let expected: String =
            hashes.iter().zip(&paths).map(|(hash, path)| format!("{hash}  {}\n", path.display())).collect();
        assert_eq!((code.unwrap(), text), (ExitCode::SUCCESS, expected));
        let (_, text) = printed(|out| run(&Args { paths, json: true }, out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((json[2]["hash"].as_str(), json[2]["size"].as_u64()), (Some(hashes[2]), Some(10_240)));
    }

    #[test]
    fn a_missing_file_does_not_stop_the_others() {
        let dir = Fixture::new(&[("there", b"x")]);
        let args = Args { paths: vec![dir.path("missing"), dir.path("there")], json: false };
        let (code, text) = printed(|out| run(&args, out));
        assert_eq!(code.unwrap(), ExitCode::FAILURE);
        assert!(text.ends_with("there\n") && text.lines().count() == 1);
        let (error, text) = printed(|out| run(&Args { json: true, ..args }, out));
        assert!(error.unwrap_err().to_string().contains("missing") && text.is_empty());
        let none = printed(|out| run(&Args { paths: vec![], json: false }, out)).0.unwrap_err();
        assert_eq!((none.to_string().as_str(), none.exit_code()), ("Missing file path", ExitCode::from(2)));
        assert!(files::tree_of(&dir.path("")).unwrap_err().to_string().contains("not a regular file"));
    }
}
