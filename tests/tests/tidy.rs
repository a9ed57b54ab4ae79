//! The style rules that a program can check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

/// A file that is longer is to be split.
const LINES_MAX: usize = 700;

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, out);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "rs" || extension == "p4")
        {
            out.push(path);
        }
    }
}

fn each(mut check: impl FnMut(&str, &str) -> Option<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut paths = Vec::new();
    sources(root, &mut paths);
    assert!(paths.len() > 50, "found only {} sources", paths.len());
    let faults: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            check(&name, &std::fs::read_to_string(path).unwrap())
                .map(|fault| format!("{name}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_fit_in_the_head() {
    each(|_, text| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{lines} lines, at most {LINES_MAX}: split it"))
    });
}

#[test]
fn nothing_is_left_to_do() {
    // Spelt apart, or this file would find itself.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
    ];
    each(|_, text| {
        marks
            .iter()
            .find(|mark| text.contains(**mark))
            .map(|mark| format!("has {mark}"))
    });
}

#[test]
fn unsafe_is_in_one_crate() {
    let marks = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
    ];
    each(|name, text| {
        let has = text.lines().any(|line| {
            let code = line.trim_start();
            !code.starts_with("//") && marks.iter().any(|mark| code.contains(mark))
        });
        (has && !name.starts_with("slowpath/dpdk/"))
            .then(|| "has unsafe code; it belongs in slowpath/dpdk".into())
    });
}
