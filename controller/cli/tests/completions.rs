//! Completion scripts: each shell takes its own, and bash completes with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::process::{Command, Stdio};

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shunt"))
        .args(["completions", shell])
        .output()
        .unwrap();
    assert!(output.status.success(), "{shell}");
    String::from_utf8(output.stdout).unwrap()
}

/// Has a shell read the script from standard input; `None` without that shell.
fn fed(shell: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new(shell)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some((output.status.success(), said))
}

/// Says that a part was skipped, also to the summary of `make test`.
fn skip(why: &str) {
    println!("SKIPPED {why}");
    if let Some(path) = std::env::var_os("SHUNT_SKIPPED") {
        let options = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        writeln!(options.unwrap(), "completions: {why}").unwrap();
    }
}

#[test]
fn each_shell_takes_its_script() {
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for word in ["take-over", "interval", "dry-run", "reconcile", "value-set"] {
            // The last is a word of an entity, and not of the command line.
            assert_eq!(
                script.contains(word),
                word != "value-set",
                "{shell}: {word}"
            );
        }
        match fed(shell, &["-n"], &script) {
            None => skip(&format!(
                "{shell} is not on PATH: its script was not parsed"
            )),
            Some((well, said)) => assert!(well && said.is_empty(), "{shell}: {said}"),
        }
    }
}

/// What a user gets who presses the key after these words, the last of them begun.
fn completed(words: &[&str]) -> Vec<String> {
    let line = words.join("' '");
    let last = words.len() - 1;
    let previous = words[last - 1];
    let current = words[last];
    let ask = format!(
        "\nCOMP_WORDS=('{line}'); COMP_CWORD={last}; _shunt shunt '{current}' '{previous}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let (well, said) = fed("bash", &[], &(script("bash") + &ask)).expect("bash is on PATH");
    assert!(well, "{said}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_and_options() {
    assert_eq!(completed(&["shunt", "p"]), ["p4"]);
    assert_eq!(completed(&["shunt", "p4", "w"]), ["watch"]);
    assert_eq!(completed(&["shunt", "p4", "pipeline", "ver"]), ["verify"]);
    assert_eq!(
        completed(&["shunt", "p4", "watch", "--int"]),
        ["--interval"]
    );
    assert_eq!(
        completed(&["shunt", "p4", "read", "--output", "j"]),
        ["json", "jsonl"]
    );
    assert!(completed(&["shunt", "completions", ""]).contains(&"fish".to_owned()));
}
