//! Code for packets of which something is known.
//!
//! The code as it is compiled tests the same thing again and again: whether the IPv4 header is
//! valid, whether a reason to punt has come up. What a packet has been through tells most of that.
//! So from the start of the parser on, where all is known, through ingress, code is put together
//! once more: a test whose result is known is left out, and where two ways meet with different
//! knowledge, each goes on in code of its own. The general code stays for packets that come
//! otherwise.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::build::{Builder, Label};
use super::effect::{Source, Test, Write, bytes_of};
use super::{At, Code, Op, Targets};
use crate::program::Program;

/// Bytes of the packet state that are followed at most: those that are tested most often.
const MAX_BYTES: usize = 128;
/// When there are so many operations, ways are no longer told apart.
const MAX_OPS: usize = 1 << 16;

/// Which bits of which byte are known, and what they are.
type Facts = BTreeMap<At, (u8, u8)>;
/// Where code begins: the place in the general code, whether the parser is done, what is known.
type Start = (At, bool, Facts);

struct Special<'c> {
    program: &'c Program,
    ops: &'c [Op],
    tables: &'c [Targets],
    ingress: At,
    /// By place, which bytes may be tested from there on.
    live: Vec<u128>,
    /// The bytes that are followed, in order.
    bytes: Vec<At>,
    /// Where jumps lead to.
    leaders: HashSet<At>,
    build: Builder,
    labels: HashMap<Start, Label>,
    todo: Vec<(Start, Label)>,
    targets: Vec<(Vec<Label>, Vec<Label>, Label)>,
}

impl Code {
    /// Appends code that goes from the parser through ingress, if each operation says what it does.
    pub(super) fn specialise(&mut self, program: &Program) {
        let (Some(parser), Some(ingress)) = (self.parser, self.ingress) else {
            return;
        };
        let in_parser = reached(&self.ops, &self.tables, parser);
        let unclear = |at: &At| {
            matches!(
                self.ops.get(*at as usize),
                Some(Op::Select(_) | Op::ParserStep(..) | Op::Step(..) | Op::Run(_)) | None
            )
        };
        if in_parser.iter().any(unclear) {
            return;
        }
        let bytes = most_tested(&self.ops);
        let mut special = Special {
            program,
            live: live(
                &self.ops,
                &self.tables,
                program,
                &bytes,
                (&in_parser, ingress),
            ),
            leaders: leaders(&self.ops, &self.tables),
            ops: &self.ops,
            tables: &self.tables,
            ingress,
            bytes,
            build: Builder::default(),
            labels: HashMap::new(),
            todo: Vec::new(),
            targets: Vec::new(),
        };
        let start = special.label(parser, false, special.at_first());
        while let Some(((at, parsed, facts), label)) = special.todo.pop() {
            special.build.bind(label);
            special.block(at, parsed, facts);
        }
        let Special { build, targets, .. } = special;
        let base = self.ops.len() as At;
        let (ops, place) = build.finish(base);
        for (hit, miss, nothing) in targets {
            let all = |labels: Vec<Label>| labels.into_iter().map(&place).collect();
            self.tables.push(Targets {
                hit: all(hit),
                miss: all(miss),
                nothing: place(nothing),
            });
        }
        self.ops.extend(ops);
        self.whole = Some(place(start));
    }
}

impl Special<'_> {
    /// What is known of a packet that has just come in.
    fn at_first(&self) -> Facts {
        let layout = &self.program.layout;
        let standard = &self.program.standard;
        let given = [
            standard.ingress_port,
            standard.packet_length,
            standard.instance_type,
        ];
        let given = given.into_iter().chain(standard.ingress_timestamp);
        let given: Vec<_> = given.map(bytes_of).collect();
        let known = |at: &&At| {
            let at = **at;
            (at as usize) < layout.args_start
                && !given
                    .iter()
                    .any(|(from, len)| (*from..from + len).contains(&at))
        };
        let value = |at: &At| Some((*at, (0xff, *layout.template.get(*at as usize)?)));
        self.bytes.iter().filter(known).filter_map(value).collect()
    }

    /// The label of the code for this place and knowledge.
    fn label(&mut self, at: At, parsed: bool, facts: Facts) -> Label {
        let at = self.skip(at, &facts);
        let facts = self.needed(at, facts);
        let (labels, build, todo) = (&mut self.labels, &mut self.build, &mut self.todo);
        let start = (at, parsed, facts);
        if let Some(label) = labels.get(&start) {
            return *label;
        }
        let label = build.label();
        labels.insert(start.clone(), label);
        todo.push((start, label));
        label
    }

    /// Follows jumps, and tests whose result is known.
    fn skip(&self, mut at: At, facts: &Facts) -> At {
        // Jumps among themselves in a circle would be a parser without an end, which counts states.
        for _ in 0..self.ops.len() {
            at = match self.ops.get(at as usize) {
                Some(Op::Jump(to)) => *to,
                Some(op) => match op
                    .test()
                    .and_then(|test| Some((decide(facts, &test)?, test)))
                {
                    Some((equal, test)) if equal == test.jumps_if => test.to,
                    Some(_) => at + 1,
                    None => return at,
                },
                None => return at,
            };
        }
        at
    }

    /// What matters from here on; nothing if there is too much code already.
    fn needed(&self, at: At, mut facts: Facts) -> Facts {
        let live = self.live.get(at as usize).copied().unwrap_or(0);
        let few = self.build.len() < MAX_OPS;
        facts.retain(|byte, _| {
            let index = self.bytes.binary_search(byte);
            few && index.is_ok_and(|index| live & 1 << index != 0)
        });
        facts
    }

    fn write(&self, facts: &Facts, writes: Option<Vec<Write>>) -> Facts {
        let Some(writes) = writes else {
            return Facts::new();
        };
        let mut after = facts.clone();
        for (to, len, source) in writes {
            for byte in self.bytes.iter().filter(|b| (to..to + len).contains(*b)) {
                let offset = byte - to;
                let known = match &source {
                    Source::Bytes(bytes) => bytes.get(offset as usize).map(|b| (0xff, *b)),
                    Source::From(from) => facts.get(&(from + offset)).copied(),
                    Source::Unknown => None,
                };
                match known {
                    Some(known) => after.insert(*byte, known),
                    None => after.remove(byte),
                };
            }
        }
        after
    }

    /// What is known behind a test with this result.
    fn learn(&self, facts: &Facts, test: &Test, equal: bool) -> Facts {
        let mut after = facts.clone();
        let bytes = test.masks.iter().zip(&test.values);
        let bytes = (test.at..).zip(bytes);
        if equal {
            for (at, (mask, value)) in bytes {
                if *mask != 0 && self.bytes.binary_search(&at).is_ok() {
                    let (known, old) = after.entry(at).or_default();
                    *known |= mask;
                    *old = (*old & !mask) | (value & mask);
                }
            }
            return after;
        }
        // If all but one bit are as tested, that one is not.
        let open = bytes.map(|(at, (mask, value))| {
            let (known, _) = facts.get(&at).copied().unwrap_or_default();
            (at, mask & !known, *value)
        });
        let open: Vec<_> = open.filter(|(_, mask, _)| *mask != 0).collect();
        if let [(at, mask, value)] = open.as_slice()
            && mask.is_power_of_two()
            && self.bytes.binary_search(at).is_ok()
        {
            let (known, old) = after.entry(*at).or_default();
            *known |= mask;
            *old = (*old & !mask) | (!value & mask);
        }
        after
    }

    /// The code from a place on, until it jumps to other code.
    fn block(&mut self, mut at: At, mut parsed: bool, mut facts: Facts) {
        let program = self.program;
        let mut first = true;
        loop {
            at = self.skip(at, &facts);
            if !first && self.leaders.contains(&at) {
                facts = self.needed(at, facts);
                let start = (at, parsed, facts.clone());
                if let Some(label) = self.labels.get(&start) {
                    self.build.push(Op::Jump(*label));
                    return;
                }
                let label = self.build.here();
                self.labels.insert(start, label);
            }
            first = false;
            let Some(op) = self.ops.get(at as usize) else {
                self.build.push(Op::End);
                return;
            };
            let mut copy = op.clone();
            if let Some(test) = op.test() {
                let there = self.learn(&facts, &test, test.jumps_if);
                let there = self.label(test.to, parsed, there);
                if let Some(to) = copy.target() {
                    *to = there;
                }
                facts = self.learn(&facts, &test, !test.jumps_if);
            } else if let Op::Switch(_, cases, default) = &mut copy {
                for to in cases.iter_mut().map(|c| &mut c.to).chain([default]) {
                    *to = self.label(*to, parsed, facts.clone());
                }
                self.build.push(copy);
                return;
            } else if let Some(to) = copy.target() {
                *to = self.label(*to, parsed, facts.clone());
            } else if let Op::Table(index, targets) = copy {
                facts = self.write(&facts, op.writes(program));
                self.table(index, targets, parsed, &facts);
                return;
            } else if matches!(op, Op::End) {
                if parsed {
                    self.build.push(copy);
                    return;
                }
                self.build.push(Op::Parsed);
                facts = self.write(&facts, Op::Parsed.writes(program));
                parsed = true;
                at = self.ingress;
                continue;
            } else {
                facts = self.write(&facts, op.writes(program));
            }
            self.build.push(copy);
            at += 1;
        }
    }

    fn table(&mut self, index: u32, targets: u32, parsed: bool, facts: &Facts) {
        let Some(general) = self.tables.get(targets as usize) else {
            self.build.push(Op::End);
            return;
        };
        let own = self.tables.len() + self.targets.len();
        self.build.push(Op::Table(index, own as u32));
        // Its place is taken before its code may have tables.
        let mut all = |places: &[At]| {
            let labels = places
                .iter()
                .map(|at| self.label(*at, parsed, facts.clone()));
            labels.collect::<Vec<_>>()
        };
        let labels = (all(&general.hit), all(&general.miss));
        let nothing = self.label(general.nothing, parsed, facts.clone());
        self.targets.push((labels.0, labels.1, nothing));
    }
}

/// The result of a test, if it is known.
fn decide(facts: &Facts, test: &Test) -> Option<bool> {
    let mut all = true;
    let bytes = test.masks.iter().zip(&test.values);
    for (at, (mask, value)) in (test.at..).zip(bytes) {
        let (known, is) = facts.get(&at).copied().unwrap_or_default();
        if (is ^ value) & known & mask != 0 {
            return Some(false);
        }
        all &= mask & !known == 0;
    }
    all.then_some(true)
}

/// Where an operation may lead.
fn successors(ops: &[Op], tables: &[Targets], at: At) -> Vec<At> {
    let Some(op) = ops.get(at as usize) else {
        return Vec::new();
    };
    match op {
        Op::End => Vec::new(),
        Op::Jump(to) => vec![*to],
        Op::Switch(_, cases, default) => cases.iter().map(|c| c.to).chain([*default]).collect(),
        Op::Table(_, targets) => tables.get(*targets as usize).map_or_else(Vec::new, |t| {
            t.hit
                .iter()
                .chain(&t.miss)
                .copied()
                .chain([t.nothing])
                .collect()
        }),
        other => other
            .clone()
            .target()
            .copied()
            .into_iter()
            .chain([at + 1])
            .collect(),
    }
}

fn reached(ops: &[Op], tables: &[Targets], start: At) -> HashSet<At> {
    let mut seen = HashSet::from([start]);
    let mut todo = vec![start];
    while let Some(at) = todo.pop() {
        todo.extend(
            successors(ops, tables, at)
                .into_iter()
                .filter(|to| seen.insert(*to)),
        );
    }
    seen
}

fn leaders(ops: &[Op], tables: &[Targets]) -> HashSet<At> {
    let all = 0..ops.len() as At;
    let jumps = all.flat_map(|at| {
        let to = successors(ops, tables, at);
        to.into_iter().filter(move |to| *to != at + 1)
    });
    jumps.collect()
}

fn most_tested(ops: &[Op]) -> Vec<At> {
    let mut counts: BTreeMap<At, usize> = BTreeMap::new();
    for test in ops.iter().filter_map(Op::test) {
        for (at, _) in (test.at..).zip(&test.masks).filter(|(_, mask)| **mask != 0) {
            *counts.entry(at).or_default() += 1;
        }
    }
    let mut bytes: Vec<_> = counts.into_iter().collect();
    bytes.sort_by_key(|(at, count)| (std::cmp::Reverse(*count), *at));
    let mut bytes: Vec<_> = bytes
        .into_iter()
        .map(|(at, _)| at)
        .take(MAX_BYTES)
        .collect();
    bytes.sort_unstable();
    bytes
}

/// By place, the bytes that may be tested from there on before they are written. The parser's end
/// leads to ingress.
fn live(
    ops: &[Op],
    tables: &[Targets],
    program: &Program,
    bytes: &[At],
    (in_parser, ingress): (&HashSet<At>, At),
) -> Vec<u128> {
    let bit = |at: At| bytes.binary_search(&at).map_or(0, |index| 1_u128 << index);
    // What each operation asks for, what it overwrites, and copies from byte to byte.
    let effects: Vec<_> = ops
        .iter()
        .map(|op| {
            let test = op.test();
            let tested = test.iter().flat_map(|t| (t.at..).zip(&t.masks));
            let tested = tested.filter(|(_, mask)| **mask != 0);
            let asks = tested.fold(0, |all, (at, _)| all | bit(at));
            let (mut kills, mut copies) = (0, Vec::new());
            for (to, len, source) in op.writes(program).unwrap_or_default() {
                for (offset, at) in (to..to + len).enumerate().filter(|(_, at)| bit(*at) != 0) {
                    kills |= bit(at);
                    if let Source::From(from) = source {
                        copies.push((bit(at), bit(from + offset as At)));
                    }
                }
            }
            (asks, kills, copies)
        })
        .collect();
    let next: Vec<Vec<At>> = (0..ops.len() as At)
        .map(|at| match ops.get(at as usize) {
            Some(Op::End) if in_parser.contains(&at) => vec![ingress],
            _ => successors(ops, tables, at),
        })
        .collect();
    let mut live = vec![0_u128; ops.len()];
    loop {
        let mut changed = false;
        for at in (0..ops.len()).rev() {
            let (Some((asks, kills, copies)), Some(next)) = (effects.get(at), next.get(at)) else {
                continue;
            };
            let after = next.iter().fold(0, |all, to| {
                all | live.get(*to as usize).copied().unwrap_or(0)
            });
            let copied = copies.iter().filter(|(to, _)| after & to != 0);
            let copied = copied.fold(0, |all, (_, from)| all | from);
            let now = asks | copied | (after & !kills);
            if let Some(place) = live.get_mut(at)
                && *place != now
            {
                *place = now;
                changed = true;
            }
        }
        if !changed {
            return live;
        }
    }
}
