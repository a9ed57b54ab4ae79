//! A program on a terminal of its own, and what is on its screen.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(20);
/// A screen that has not changed for so long is not about to.
const SETTLED: Duration = Duration::from_millis(1_500);

#[derive(Default)]
struct Seen {
    parser: vt100::Parser,
    /// Written so far, bytes.
    written: usize,
    size: (u16, u16),
}

/// The screen's text, blanks at the ends of lines left out.
pub(super) fn text(screen: &vt100::Screen) -> String {
    let lines = screen.rows(0, screen.size().1.get());
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

pub(super) struct Session {
    master: File,
    /// The program's end, kept open so that its settings can be looked at.
    slave: File,
    child: Mutex<Child>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Session {
    pub(super) fn start(socket: &Path, words: &[&str], size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.to_str().unwrap())
            .unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        tcsetwinsize(&master, winsize(size)).unwrap();
        // The terminal is its session's, so that it is told of other sizes.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(env!("CARGO_BIN_EXE_shunt"))
            .arg("--socket")
            .arg(socket)
            .args(words)
            .env("TERM", "xterm-256color")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let seen = Arc::new((
            Mutex::new(Seen {
                parser: vt100::Parser::new(cells(size.1), cells(size.0), 0),
                written: 0,
                size,
            }),
            Condvar::new(),
        ));
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let mut seen = to.0.lock().unwrap();
                seen.parser.process(&buffer[..n]);
                seen.written += n;
                to.1.notify_all();
            }
        });
        Self {
            master,
            slave,
            child: Mutex::new(child),
            seen,
        }
    }

    pub(super) fn size(&self) -> (u16, u16) {
        self.seen.0.lock().unwrap().size
    }

    pub(super) fn resize(&self, size: (u16, u16)) {
        let mut seen = self.seen.0.lock().unwrap();
        seen.parser
            .screen_mut()
            .set_size(cells(size.1), cells(size.0));
        seen.size = size;
        tcsetwinsize(&self.master, winsize(size)).unwrap();
    }

    pub(super) fn type_keys(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = self.child.lock().unwrap().id();
        kill_process(Pid::from_raw(id as i32).unwrap(), signal).unwrap();
    }

    pub(super) fn wait(&self, what: &str, until: impl Fn(&vt100::Screen) -> bool) {
        let (seen, changed) = &*self.seen;
        let found = changed
            .wait_timeout_while(seen.lock().unwrap(), DEADLINE, |seen| {
                !until(seen.parser.screen())
            })
            .unwrap();
        assert!(
            !found.1.timed_out(),
            "waited for {what}; the screen is\n{}",
            text(found.0.parser.screen())
        );
    }

    pub(super) fn wait_text(&self, words: &str) {
        self.wait(&format!("{words:?}"), |screen| text(screen).contains(words));
    }

    /// Until something more has been written.
    pub(super) fn wait_anew(&self) {
        let (seen, changed) = &*self.seen;
        let seen = seen.lock().unwrap();
        let before = seen.written;
        let waited = changed.wait_timeout_while(seen, DEADLINE, |seen| seen.written == before);
        assert!(!waited.unwrap().1.timed_out(), "nothing more is written");
    }

    /// The screen once it changes no more.
    pub(super) fn settled(&self) -> String {
        let (seen, changed) = &*self.seen;
        let mut seen = seen.lock().unwrap();
        loop {
            let before = text(seen.parser.screen());
            let waited = changed
                .wait_timeout_while(seen, SETTLED, |seen| text(seen.parser.screen()) == before)
                .unwrap();
            seen = waited.0;
            if waited.1.timed_out() {
                return before;
            }
        }
    }

    /// It ends with that code, and the terminal is as it was.
    pub(super) fn expect_given_back(&self, code: Option<i32>) {
        let begun = Instant::now();
        let mut child = self.child.lock().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), code, "signal {:?}", status.signal());
        self.wait("the first screen and a cursor", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        });
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        let wanted = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.contains(wanted), "{modes:?}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn winsize((columns, rows): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}
