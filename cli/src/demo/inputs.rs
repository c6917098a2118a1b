//! The packages of the demo, staged from real files of this machine: the executable itself and the libraries it runs on,
//! time-zone data, this project's documents; or the folders a person names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Documents that travel inside the executable.
const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", include_str!("../../../README.md")),
    ("CHANGELOG.md", include_str!("../../../CHANGELOG.md")),
    ("docs/ARCHITECTURE.md", include_str!("../../../docs/ARCHITECTURE.md")),
];

/// Where time-zone data is on most systems.
const ZONEINFO: &str = "/usr/share/zoneinfo";

/// Time-zone files taken at most.
const ZONES_MAX: usize = 400;

/// Pieces of the executable in the package that is held back.
const PARTS: usize = 32;

/// Length of each piece, bytes.
const PART_BYTES: usize = 64 * 1024;

/// The package that the device resolves only when an edge lies.
pub(super) const HELD_BACK: &str = "held-back";

/// The package whose files change in release 2.
pub(super) const CHANGING: &str = "documents";

/// A staged package: its name and the folder its files are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staged {
    pub name: String,
    pub dir: PathBuf,
}

/// Stages the packages of release 1 below `work`.
pub(super) fn release_1(work: &Path, from: &[PathBuf]) -> io::Result<Vec<Staged>> {
    let mut staged = Vec::new();
    if from.is_empty() {
        let colibri = stage(work, "colibri");
        copy(&std::env::current_exe()?, &colibri.dir.join("bin/colibri"))?;
        for library in libraries() {
            let name = library.file_name().unwrap_or_default();
            copy(&library, &colibri.dir.join("lib").join(name))?;
        }
        staged.push(colibri);
        let zones = stage(work, "zoneinfo");
        if copy_tree(Path::new(ZONEINFO), &zones.dir.join("data"), &mut ZONES_MAX.clone())? > 0 {
            staged.push(zones);
        }
    }
    for dir in from {
        let package = stage(work, &free_name(&staged, package_name(dir)));
        if copy_tree(dir, &package.dir.join("data"), &mut usize::MAX.clone())? == 0 {
            return Err(io::Error::other(format!("{}: there is no file to publish in it", dir.display())));
        }
        staged.push(package);
    }
    let documents = stage(work, CHANGING);
    for (name, text) in DOCUMENTS {
        write(&documents.dir.join(name), text.as_bytes())?;
    }
    staged.push(documents);
    Ok(staged)
}

/// Changes what release 2 changes, and stages what it adds.
pub(super) fn release_2(work: &Path) -> io::Result<Vec<Staged>> {
    let documents = stage(work, CHANGING);
    let changelog = documents.dir.join("CHANGELOG.md");
    let mut text = fs::read_to_string(&changelog)?;
    text.push_str("\nThis line came with release 2.\n");
    write(&changelog, text.as_bytes())?;
    write(&documents.dir.join("release"), b"2\n")?;
    let held_back = stage(work, HELD_BACK);
    let executable = fs::read(std::env::current_exe()?)?;
    // Pieces at odd places are blobs that no other package has.
    let gap = (executable.len() / PARTS).max(1);
    for (number, piece) in executable.chunks(gap).take(PARTS).enumerate() {
        let piece = &piece[..piece.len().min(PART_BYTES - number)];
        write(&held_back.dir.join(format!("part-{number:02}")), piece)?;
    }
    Ok(vec![documents, held_back])
}

fn stage(work: &Path, name: &str) -> Staged {
    Staged { name: name.to_owned(), dir: work.join("staged").join(name) }
}

/// The shared libraries this process runs on, as the kernel lists them.
fn libraries() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    paths.filter(|path| path.to_str().is_some_and(|path| path.contains(".so")) && path.is_file()).collect()
}

/// A folder's name as a package name: what the grammar does not allow becomes `-`.
fn package_name(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c) { c } else { '-' };
    let name: String = name.chars().map(allowed).collect();
    if name.is_empty() || name == CHANGING || name == HELD_BACK { format!("from-{name}") } else { name }
}

/// The name, or the name with the first number that makes it one of its own.
fn free_name(taken: &[Staged], name: String) -> String {
    let is_taken = |name: &str| taken.iter().any(|staged| staged.name == name);
    let numbered = (2..).map(|number| format!("{name}-{number}")).find(|name| !is_taken(name));
    if is_taken(&name) { numbered.unwrap_or(name) } else { name }
}

/// Copies regular files (links followed) until `left` is used up; how many were copied.
fn copy_tree(from: &Path, to: &Path, left: &mut usize) -> io::Result<usize> {
    let mut copied = 0;
    let Ok(entries) = fs::read_dir(from) else { return Ok(0) };
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if *left == 0 || entry.file_name().to_str().is_none_or(|name| name.contains('\n')) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copied += copy_tree(&path, &target, left)?;
        } else if path.is_file() {
            copy(&path, &target)?;
            *left -= 1;
            copied += 1;
        }
    }
    Ok(copied)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, to).map(drop).map_err(named)
}

fn write(to: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", to.display()));
    fs::write(to, content).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_one_name_become_packages_of_two() {
        let dir = tempfile::tempdir().unwrap();
        let from = ["a/My App", "b/My App"].map(|name| dir.path().join(name));
        for (number, folder) in from.iter().enumerate() {
            write(&folder.join("sub/file"), &[number as u8]).unwrap();
        }
        let staged = release_1(&dir.path().join("work"), &from).unwrap();
        let names: Vec<_> = staged.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["my-app", "my-app-2", CHANGING]);
        assert_eq!(fs::read(staged[1].dir.join("data/sub/file")).unwrap(), [1]);
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(release_1(&dir.path().join("other"), &[empty]).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn release_2_changes_a_document_and_adds_the_package_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        write(&from.join("file"), b"x").unwrap();
        release_1(dir.path(), &[from]).unwrap();
        let staged = release_2(dir.path()).unwrap();
        assert_eq!(staged[1].name, HELD_BACK);
        assert_eq!(fs::read_dir(&staged[1].dir).unwrap().count(), PARTS);
        assert!(fs::read_to_string(staged[0].dir.join("CHANGELOG.md")).unwrap().ends_with("release 2.\n"));
    }
}
