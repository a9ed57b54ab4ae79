//! Replays what fuzzing found worth keeping, through the same functions. A case that once failed
//! is there under a name of its own (`found-…`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../fuzz/src/harness.rs"]
mod harness;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() > 10, "the corpus is missing");
    for name in names {
        // Named when it fails: the harness itself doesn't know.
        println!("{}", name.display());
        run(&std::fs::read(&name).unwrap());
    }
}

#[test]
fn parser() {
    replay("parser", harness::parser);
}

#[test]
fn icmp() {
    replay("icmp", harness::icmp);
}

#[test]
fn fragments() {
    replay("fragments", harness::fragments);
}

#[test]
fn walk() {
    replay("walk", harness::walk);
}

/// The hand-made inputs, from which fuzzing starts; `WRITE_SEEDS=1` puts them into the corpora.
#[test]
fn seeds() {
    for (target, name, bytes) in harness::seeds() {
        if std::env::var_os("WRITE_SEEDS").is_some() {
            let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(format!("{folder}/{name}"), &bytes).unwrap();
        }
        match target {
            "parser" => harness::parser(&bytes),
            "icmp" => harness::icmp(&bytes),
            "fragments" => harness::fragments(&bytes),
            _ => harness::walk(&bytes),
        }
    }
}
