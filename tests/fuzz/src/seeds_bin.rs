//! `seeds list` prints the targets, `NAME MAX_BYTES` per line; `seeds write NAME DIR` writes the seeds of one, a file each.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for target in colibri_fuzz::TARGETS {
                println!("{} {}", target.name, target.input_bytes_max);
            }
            ExitCode::SUCCESS
        }
        ["write", name, dir] => match colibri_fuzz::target(name) {
            Some(target) => {
                for (number, seed) in (target.seeds)().iter().enumerate() {
                    let path = Path::new(dir).join(format!("seed-{number}"));
                    std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                }
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("no fuzz target {name}");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: seeds list | seeds write NAME DIR");
            ExitCode::from(2)
        }
    }
}
