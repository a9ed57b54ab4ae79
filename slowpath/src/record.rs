//! What must not be lost when the daemon is killed: every connection, in a file that is mapped.
//!
//! ```text
//!   worker ── a record at admission, its state, zero at the end ──▶ memory of the file
//!                                                                     │ the kernel keeps it
//!   the next daemon ◀── every whole record, read once ────────────────┘ when the process dies
//!
//!   header │ worker 0: first lines │ second lines   │ worker 1: …
//!          │  one for each slot    │ IPv6, counters │
//! ```
//!
//! Writing costs a cache line a connection and no system call. A record is valid when its check
//! word fits the others, so one that was half written, or cleared, is none. A new daemon writes a
//! new file beside the old one and puts it in its place when it has taken all over, so that being
//! killed in between loses nothing either. Nothing in the file is trusted: what it says is held
//! against the configuration, and a wrong record is one connection less.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use shunt_dpdk::MappedWords;
use shunt_p4::{MAX_SWITCHES, SwitchIndex, VpcId};

use crate::config::MAX_WORKERS;
use crate::conntrack::{Connection, Direction, Key, MAX_CONNECTIONS, Tracker};

/// "shunt", and the layout's version.
const MAGIC: u64 = u64::from_be_bytes(*b"shunt\0\0\x02");
/// Words of the header: a page.
const HEADER: usize = 512;
/// Words of a record: a cache line.
const LINE: usize = 8;
/// Words of a record's second line: what an IPv6 record has besides, and what was counted.
const REST: usize = LINE;
/// Words of the former.
const HIGH: usize = 4;

// Words of the header.
const AT_MAGIC: usize = 0;
const AT_WORKERS: usize = 1;
const AT_CAPACITY: usize = 2;
const AT_SEED: usize = 3;
/// The wall clock at the workers' time zero, nanoseconds since 1970.
const AT_ZERO: usize = 4;
/// The workers' time when they last ran.
const AT_LAST: usize = 5;
/// Which switches there were: of each its name's hash, 0 for none.
const AT_SWITCHES: usize = 8;

/// Bits of a record's fourth word that may change by themselves: the tracker, the switch, and
/// [`COUNTED`].
const CHANGING: u64 = 0x1_ffff;
const SWITCH_SHIFT: u32 = 8;
/// The second line has counters.
const COUNTED: u64 = 0x1_0000;

/// A connection as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What each direction's packets look like on arrival.
    pub keys: [Key; 2],
    /// The VPC that each direction is routed in.
    pub route_vpcs: [VpcId; 2],
    /// Its state, without sequence numbers.
    pub tracker: Tracker,
    /// The switch that its entries were on last, as that daemon numbered it; absent if they never
    /// were on one.
    pub switch: SwitchIndex,
    /// What was counted when its entries last came or left, but in what was in hardware then.
    pub counted: Counters,
}

/// Packets and bytes of a connection, in the direction of its first packet and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: [u64; 2],
    /// Bytes.
    pub bytes: [u64; 2],
}

/// A switch's name in few bits (FNV-1a); never 0.
fn hash_of(name: &str) -> u64 {
    let bytes = name.bytes();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// Where words lie, of so many workers with so many slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    workers: usize,
    capacity: usize,
}

impl Layout {
    /// `None`: out of range.
    fn new(workers: u64, capacity: u64) -> Option<Self> {
        let workers = usize::try_from(workers).ok()?;
        let capacity = usize::try_from(capacity).ok()?;
        let possible = (1..=usize::from(MAX_WORKERS)).contains(&workers)
            && (1..=MAX_CONNECTIONS as usize).contains(&capacity);
        possible.then_some(Self { workers, capacity })
    }

    /// Words of a worker's lines; those of the next begin at a cache line again.
    const fn area(self) -> usize {
        (self.capacity * (LINE + REST)).next_multiple_of(LINE)
    }

    const fn words(self) -> usize {
        HEADER + self.workers * self.area()
    }

    const fn line(self, worker: usize, slot: usize) -> usize {
        HEADER + worker * self.area() + slot * LINE
    }

    const fn rest(self, worker: usize, slot: usize) -> usize {
        HEADER + worker * self.area() + self.capacity * LINE + slot * REST
    }
}

/// The file of this daemon, and what the one before has left.
#[derive(Debug)]
pub struct StateFile {
    words: Arc<MappedWords>,
    layout: Layout,
    path: PathBuf,
    written: PathBuf,
    /// What the daemon before has left, until [`StateFile::finish`].
    pub former: Option<FormerFile>,
    /// The workers' secret.
    pub seed: u64,
}

impl StateFile {
    /// Reads what is at `path`, if it is a state file, and begins a new one beside it. `seed` is
    /// used if there was none; workers with another one would not agree with their predecessors
    /// whose a connection is. `now_ns` is the workers' time, `switches` are their names.
    ///
    /// # Errors
    /// The kernel's, of the new file.
    pub fn begin(
        path: &Path,
        workers: u16,
        capacity: u32,
        seed: u64,
        now_ns: u64,
        switches: &[String],
    ) -> io::Result<Self> {
        let layout =
            Layout::new(workers.into(), capacity.into()).ok_or(io::ErrorKind::InvalidInput)?;
        let former = FormerFile::open(path);
        let seed = former.as_ref().map_or(seed, |former| former.seed);
        let mut written = path.as_os_str().to_owned();
        written.push(".new");
        let written = PathBuf::from(written);
        let words = MappedWords::create(&written, layout.words())?;
        let header = [
            (AT_WORKERS, layout.workers as u64),
            (AT_CAPACITY, layout.capacity as u64),
            (AT_SEED, seed),
            (AT_ZERO, wall_ns().saturating_sub(now_ns)),
            (AT_LAST, now_ns),
            (AT_MAGIC, MAGIC),
        ];
        let names = switches.iter().take(MAX_SWITCHES).enumerate();
        let names = names.map(|(n, name)| (AT_SWITCHES + n, hash_of(name)));
        for (at, value) in names.chain(header) {
            if let Some(word) = words.words().get(at) {
                word.store(value, Ordering::Release);
            }
        }
        Ok(Self {
            words: Arc::new(words),
            layout,
            path: path.to_owned(),
            written,
            former,
            seed,
        })
    }

    /// Where a worker writes.
    pub fn records(&self, worker: u16) -> Records {
        Records {
            words: Arc::clone(&self.words),
            layout: self.layout,
            worker: worker.into(),
            seed: self.seed,
        }
    }

    /// Everything was taken over: the new file takes the old one's place.
    ///
    /// # Errors
    /// The kernel's; the old one stays.
    pub fn finish(&mut self) -> io::Result<()> {
        self.former = None;
        std::fs::rename(&self.written, &self.path)
    }
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The file of the daemon before.
#[derive(Debug)]
pub struct FormerFile {
    words: MappedWords,
    layout: Layout,
    seed: u64,
    /// How long nobody has been there.
    pub away: Duration,
}

impl FormerFile {
    /// `None`: there is none, or it is no state file of this version.
    fn open(path: &Path) -> Option<Self> {
        let words = match MappedWords::open(path) {
            Ok(words) => words,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the state file cannot be read");
                return None;
            }
        };
        let found = Self::read(words);
        if found.is_none() {
            tracing::warn!(path = %path.display(), "this is no state file of this version");
        }
        found
    }

    fn read(words: MappedWords) -> Option<Self> {
        let word = |at: usize| Some(words.words().get(at)?.load(Ordering::Acquire));
        let layout = Layout::new(word(AT_WORKERS)?, word(AT_CAPACITY)?)?;
        if word(AT_MAGIC)? != MAGIC || words.words().len() < layout.words() {
            return None;
        }
        let last_ns = word(AT_ZERO)?.saturating_add(word(AT_LAST)?);
        Some(Self {
            layout,
            seed: word(AT_SEED)?,
            away: Duration::from_nanos(wall_ns().saturating_sub(last_ns)),
            words,
        })
    }

    /// What the switch of a record is now that these are the switches. `None`: it is none of them.
    pub fn switch(&self, of: SwitchIndex, switches: &[String]) -> Option<SwitchIndex> {
        let word = |at: usize| Some(self.words.words().get(at)?.load(Ordering::Acquire));
        let was = (of.place() < MAX_SWITCHES).then(|| word(AT_SWITCHES + of.place()))??;
        let is = switches.iter().position(|name| hash_of(name) == was)?;
        Some(SwitchIndex::of(is))
    }

    /// Whose records there are.
    pub fn workers(&self) -> u16 {
        // Not more than `MAX_WORKERS`.
        self.layout.workers as u16
    }

    /// The whole records of a worker from slot `from` on, at most `limit`, and the slot to go on
    /// from; `None` at the end.
    pub fn records(&self, worker: u16, from: u32, limit: usize) -> (Vec<Record>, Option<u32>) {
        let mut found = Vec::new();
        let mut slot = from as usize;
        while slot < self.layout.capacity && found.len() < limit {
            found.extend(self.record(worker.into(), slot));
            slot += 1;
        }
        let next = (slot < self.layout.capacity).then_some(slot as u32);
        (found, next)
    }

    fn record(&self, worker: usize, slot: usize) -> Option<Record> {
        let words = self.words.words();
        let at = self.layout.line(worker, slot);
        let line = words.get(at..at + LINE)?;
        let [check, forward, reply, about, fs, fd, rs, rd] = load::<LINE>(line)?;
        // The mark of an end, and of never having been.
        if check == 0 {
            return None;
        }
        let at = self.layout.rest(worker, slot);
        let rest = words.get(at..at + REST)?;
        let high = match forward & 1 {
            1 => load::<HIGH>(rest.get(..HIGH)?)?,
            _ => [0; HIGH],
        };
        let counted = match about & COUNTED {
            0 => Counters::default(),
            _ => {
                let [there, back, bytes_there, bytes_back] = load(rest.get(HIGH..)?)?;
                Counters {
                    packets: [there, back],
                    bytes: [bytes_there, bytes_back],
                }
            }
        };
        let line = Line {
            rests: [forward, reply],
            about,
            low: [fs, fd, rs, rd],
            high,
        };
        if check != line.check(self.seed, slot) {
            return None;
        }
        Some(Record {
            counted,
            ..line.record()?
        })
    }
}

fn load<const N: usize>(words: &[AtomicU64]) -> Option<[u64; N]> {
    let words: &[AtomicU64; N] = words.try_into().ok()?;
    Some(words.each_ref().map(|word| word.load(Ordering::Acquire)))
}

/// A record's words without its check.
#[derive(Clone, Copy)]
struct Line {
    /// Of both keys: ports, VPC, protocol, family.
    rests: [u64; 2],
    /// The VPCs that they are routed in, and the tracker.
    about: u64,
    /// Of source and destination of both keys.
    low: [u64; 4],
    high: [u64; HIGH],
}

impl Line {
    #[inline]
    fn of(connection: &Connection) -> Self {
        let [forward, reply] = [Direction::Forward, Direction::Reply]
            .map(|direction| connection.raw_key(direction).to_words());
        Self {
            rests: [forward[4], reply[4]],
            about: about(connection),
            low: [forward[1], forward[3], reply[1], reply[3]],
            high: [forward[0], forward[2], reply[0], reply[2]],
        }
    }

    fn record(&self) -> Option<Record> {
        let [fs, fd, rs, rd] = self.low;
        let [hfs, hfd, hrs, hrd] = self.high;
        let forward = Key::from_words([hfs, fs, hfd, fd, self.rests[0]])?;
        let reply = Key::from_words([hrs, rs, hrd, rd, self.rests[1]])?;
        let vpc = |shift: u32| VpcId::new((self.about >> shift) as u16);
        Some(Record {
            keys: [forward, reply],
            route_vpcs: [vpc(48)?, vpc(32)?],
            tracker: Tracker::unpacked(self.about as u8, forward.proto())?,
            switch: SwitchIndex::new((self.about >> SWITCH_SHIFT) as u8)?,
            counted: Counters::default(),
        })
    }

    /// Never 0. Tracker and switch are not in it: each is a byte, which is whole or not there.
    #[inline]
    fn check(&self, seed: u64, slot: usize) -> u64 {
        let mix = |sum: u64, word: u64| {
            (sum ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        };
        let fixed = [self.rests[0], self.rests[1], self.about & !CHANGING];
        let words = fixed.iter().chain(&self.low).chain(&self.high);
        words.fold(seed ^ slot as u64, |sum, word| mix(sum, *word)) | 1
    }
}

#[inline]
fn about(connection: &Connection) -> u64 {
    let [forward, reply] = connection.route_vpcs().map(|vpc| u64::from(vpc.get()));
    let switch = u64::from(connection.place.switch().get());
    forward << 48 | reply << 32 | switch << SWITCH_SHIFT | u64::from(connection.tracker.packed())
}

/// A worker's records.
#[derive(Debug)]
pub struct Records {
    words: Arc<MappedWords>,
    layout: Layout,
    worker: usize,
    seed: u64,
}

impl Records {
    #[inline]
    fn line(&self, slot: u32) -> Option<&[AtomicU64; LINE]> {
        let at = self.layout.line(self.worker, slot as usize);
        self.words.words().get(at..at + LINE)?.try_into().ok()
    }

    /// The slot's record from now on. It has none, or one that may be lost.
    #[inline]
    pub fn write(&self, slot: u32, connection: &Connection) {
        let line = Line::of(connection);
        let Some(words) = self.line(slot) else { return };
        let [check, forward, reply, about, fs, fd, rs, rd] = words;
        check.store(0, Ordering::Release);
        if line.rests[0] & 1 == 1 {
            let at = self.layout.rest(self.worker, slot as usize);
            let rest = self.words.words().get(at..at + HIGH).unwrap_or_default();
            for (word, value) in rest.iter().zip(line.high) {
                word.store(value, Ordering::Release);
            }
        }
        forward.store(line.rests[0], Ordering::Release);
        reply.store(line.rests[1], Ordering::Release);
        about.store(line.about, Ordering::Release);
        for (word, value) in [fs, fd, rs, rd].into_iter().zip(line.low) {
            word.store(value, Ordering::Release);
        }
        check.store(line.check(self.seed, slot as usize), Ordering::Release);
    }

    /// The connection's state or switch has changed.
    #[inline]
    pub fn note(&self, slot: u32, connection: &Connection) {
        if let Some([_, _, _, word, ..]) = self.line(slot) {
            let counted = word.load(Ordering::Relaxed) & COUNTED;
            word.store(about(connection) | counted, Ordering::Release);
        }
    }

    /// What was counted of the connection.
    pub fn count(&self, slot: u32, counted: &Counters) {
        let Some([_, _, _, about, ..]) = self.line(slot) else {
            return;
        };
        let at = self.layout.rest(self.worker, slot as usize);
        let rest = self.words.words().get(at + HIGH..at + REST);
        let counts = counted.packets.iter().chain(&counted.bytes);
        for (word, count) in rest.unwrap_or_default().iter().zip(counts) {
            word.store(*count, Ordering::Release);
        }
        about.store(about.load(Ordering::Relaxed) | COUNTED, Ordering::Release);
    }

    /// The connection is gone.
    #[inline]
    pub fn clear(&self, slot: u32) {
        if let Some([check, ..]) = self.line(slot) {
            check.store(0, Ordering::Release);
        }
    }

    /// The worker is still there.
    #[inline]
    pub fn beat(&self, now_ns: u64) {
        if let Some(word) = self.words.words().get(AT_LAST) {
            word.store(now_ns, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
