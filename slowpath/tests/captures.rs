//! Captures in, captures out: one folder for each NAT feature, with what arrives and what leaves
//! on each interface, and `summary.txt`, which says in words what happened in which order.
//!
//! The worker reads `*.in.pcap` and has to send `*.out.pcap`, byte for byte. `UPDATE_GOLDEN=1`
//! writes all files anew, what arrives too; read the summaries before they are committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

#[path = "captures/cases.rs"]
mod cases;
mod common;
#[path = "captures/file.rs"]
mod file;
#[path = "captures/words.rs"]
mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cases::{Case, cases};
use common::*;
use file::Arrived;
use shunt_p4::ShuntHeader;
use shunt_p4::frame::ENCAP_LEN;
use shunt_slowpath::worker::Verdict;

/// Simulated time of the captures' beginning.
const START: u64 = SECOND;

fn folder(case: &Case) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(case.name)
}

/// What leaves, in order, and the summary.
fn run(case: &Case, arrived: &[Arrived]) -> (Vec<Arrived>, String) {
    let mut world = case.world();
    let mut left = Vec::new();
    let mut summary = format!("{}\n{}\n\n", case.name, case.about);
    for (number, frame) in arrived.iter().enumerate() {
        // A millisecond a frame, as in the file.
        world.now = START + frame.at_us * 1000;
        let interface = frame.interface;
        let _ = writeln!(
            summary,
            "{:>2} {:5} in   {}",
            number + 1,
            name_of(interface),
            words::frame(&frame.bytes)
        );
        let (verdict, out) = world.frame(interface, &frame.bytes);
        let mut sent = Vec::new();
        match verdict {
            Verdict::Transmit => sent.push(out),
            Verdict::Answered(reason) => {
                let _ = writeln!(summary, "         drop {}", reason.as_str());
                sent.push(out);
            }
            Verdict::Drop(reason) => {
                let _ = writeln!(summary, "         drop {}", reason.as_str());
            }
            Verdict::Exception => summary += "         to the kernel\n",
            Verdict::Held => summary += "         held\n",
            Verdict::Handover(_) | Verdict::Hairpin(_) => panic!("there is one worker"),
        }
        // What was held may leave now.
        sent.extend(world.pass(0));
        for out in sent {
            let interface = ShuntHeader::parse(&out).unwrap().interface;
            let bytes = out[ENCAP_LEN..].to_vec();
            let _ = writeln!(
                summary,
                "   {:5} out  {}",
                name_of(interface),
                words::frame(&bytes)
            );
            left.push(Arrived {
                at_us: frame.at_us,
                interface,
                bytes,
            });
        }
    }
    (left, summary)
}

fn name_of(interface: u16) -> &'static str {
    match interface {
        RED => "red",
        BLUE => "blue",
        PLAIN => "plain",
        WAN => "wan",
        other => panic!("no interface {other}"),
    }
}

const INTERFACES: [u16; 4] = [RED, BLUE, PLAIN, WAN];

fn check(case: &Case, faults: &mut Vec<String>) {
    let folder = folder(case);
    let path = |interface, way| folder.join(format!("{}.{way}.pcap", name_of(interface)));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let frames = case.frames();
        for interface in INTERFACES {
            file::write(&path(interface, "in"), &frames, interface);
        }
    }
    let mut arrived: Vec<Arrived> = INTERFACES
        .iter()
        .flat_map(|interface| file::read(&path(*interface, "in"), *interface))
        .collect();
    arrived.sort_by_key(|frame| frame.at_us);
    assert!(!arrived.is_empty(), "{}: nothing arrives", case.name);
    let (left, summary) = run(case, &arrived);
    let text = folder.join("summary.txt");
    if update {
        for interface in INTERFACES {
            file::write(&path(interface, "out"), &left, interface);
        }
        std::fs::write(&text, summary).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&text).unwrap();
    if wanted != summary {
        faults.push(format!(
            "{}\n--- expected\n{wanted}--- got\n{summary}",
            case.name
        ));
    }
    for interface in INTERFACES {
        let wanted = file::read(&path(interface, "out"), interface);
        let got: Vec<_> = left
            .iter()
            .filter(|frame| frame.interface == interface)
            .cloned()
            .collect();
        if wanted != got {
            let name = name_of(interface);
            // The summary does not say everything: the first frame that differs does.
            let at = wanted.iter().zip(&got).position(|(a, b)| a != b);
            let at = at.unwrap_or(wanted.len().min(got.len()));
            faults.push(format!(
                "{}: {name}: frame {at}: {:02x?} but {:02x?}",
                case.name,
                wanted.get(at),
                got.get(at)
            ));
        }
    }
}

#[test]
fn what_arrives_leaves_as_captured() {
    let mut faults = Vec::new();
    for case in cases() {
        check(&case, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A golden file that no case writes is one that nobody checks.
#[test]
fn every_folder_has_its_case() {
    let cases = cases();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(cases.iter().any(|case| case.name == name), "{name}");
        }
    }
}
