//! Sources of the crate as text, for the tests that check them. Tests only.

use std::fs;
use std::path::{Path, PathBuf};

/// File of `src/`.
pub(super) struct Source {
    /// Path below `src/`, with slashes.
    pub(super) name: String,
    pub(super) text: String,
    /// Text without comments, with the same lines.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(name: String, text: &str) -> Self {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end());
        Self { name, text: text.to_owned(), code: code.collect::<Vec<_>>().join("\n") }
    }

    /// Returns the module of the crate's root that the file belongs to.
    pub(super) fn module(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or_default()
    }
}

/// Reads every Rust file of `src/`.
pub(super) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::new(name_below(&root, &path), &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 50, "only {} files", sources.len());
    sources
}

fn name_below(root: &Path, path: &Path) -> String {
    let parts: PathBuf = path.strip_prefix(root).unwrap().into();
    parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}
