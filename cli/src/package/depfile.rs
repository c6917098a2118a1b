//! Dependency files as Ninja reads them: `OUTPUT: INPUT INPUT…`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::{self, FilesError};

/// Writes at `path` that `output` is made of `inputs`, sorted and each once.
pub(crate) fn write<'a>(
    path: &Path,
    output: &Path,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), FilesError> {
    let mut text = format!("{}:", escaped(output));
    for input in inputs.into_iter().collect::<BTreeSet<_>>() {
        text.push(' ');
        text.push_str(&escaped(input));
    }
    text.push('\n');
    files::write(path, text.as_bytes())
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(' ', "\\ ").replace('#', "\\#").replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Fixture;

    #[test]
    fn inputs_are_sorted_unique_and_escaped() {
        let dir = Fixture::new(&[]);
        let inputs = ["b", "a c#$", "b"].map(PathBuf::from);
        write(&dir.path("d"), Path::new("out"), &inputs).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path("d")).unwrap(), "out: a\\ c\\#$$ b\n");
    }
}
