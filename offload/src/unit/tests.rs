//! Every reachable state of a unit together with a model switch, with every event.

use std::collections::{HashSet, VecDeque};

use super::*;

/// What one key of the switch's table really holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Truth {
    Empty,
    Right,
    Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    unit: Unit,
    truth: [Truth; 2],
    removed: bool,
}

const TRUTHS: [Truth; 3] = [Truth::Empty, Truth::Right, Truth::Wrong];

/// Every way in which a switch may answer a write, and what it holds afterwards.
fn answers(op: Option<Op>, truth: Truth) -> Vec<(Outcome, Truth)> {
    let Some(op) = op else {
        return vec![(Outcome::Done, truth)];
    };
    let mut answers = vec![
        (Outcome::Retry, truth),
        (Outcome::Rejected, truth),
        (Outcome::Unknown, truth),
        (Outcome::Failed, truth),
    ];
    match (op, truth) {
        (Op::Insert, Truth::Empty) => answers.extend([
            (Outcome::Done, Truth::Right),
            (Outcome::TableFull, truth),
            (Outcome::Unknown, Truth::Right),
            (Outcome::Failed, Truth::Right),
        ]),
        // Servers differ in what they look at first.
        (Op::Insert, _) => {
            answers.extend([(Outcome::AlreadyExists, truth), (Outcome::TableFull, truth)]);
        }
        (Op::Modify | Op::Delete, Truth::Empty) => answers.push((Outcome::NotFound, truth)),
        (Op::Modify, _) => answers.extend([
            (Outcome::Done, Truth::Right),
            (Outcome::Unknown, Truth::Right),
            (Outcome::TableFull, truth),
        ]),
        (Op::Delete, _) => {
            answers.extend([
                (Outcome::Done, Truth::Empty),
                (Outcome::Unknown, Truth::Empty),
            ]);
        }
    }
    answers
}

fn read(truth: [Truth; 2]) -> [Presence; 2] {
    truth.map(|truth| match truth {
        Truth::Empty => Presence::Absent,
        Truth::Right => Presence::Present,
        Truth::Wrong => Presence::Stale,
    })
}

/// Checks what a step claims against the truth; the world goes on unless the unit ended.
fn check(before: &World, mut world: World, step: Step) -> Option<World> {
    let context = || format!("{before:?} -> {world:?}: {step:?}");
    match step {
        Step::Wait => {}
        Step::Write | Step::WriteLater => {
            assert!(!world.unit.in_flight(), "a second write: {}", context());
            let mut copy = world.unit;
            assert!(copy.send().is_some(), "nothing to write: {}", context());
        }
        Step::Installed => {
            assert_eq!(world.truth, [Truth::Right; 2], "{}", context());
            assert!(!before.unit.is_announced(), "told twice: {}", context());
            assert!(!world.removed, "told after Remove: {}", context());
        }
        Step::Refused(_) | Step::Lost | Step::Evicted | Step::Gone => {
            assert_eq!(world.truth, [Truth::Empty; 2], "left behind: {}", context());
            // Remove is answered with Removed, and nothing else is.
            assert_eq!(step == Step::Gone, world.removed, "{}", context());
            assert_eq!(
                matches!(step, Step::Lost | Step::Evicted),
                world.unit.is_announced() && !world.removed,
                "{}",
                context()
            );
            // What nobody has asked to leave is not evicted.
            assert_eq!(
                step == Step::Evicted,
                before.unit.goal == Goal::Evict || world.unit.goal == Goal::Evict,
                "{}",
                context()
            );
            return None;
        }
    }
    if world.unit.life() == Life::Installed {
        assert_eq!(
            world.truth,
            [Truth::Right; 2],
            "not installed: {}",
            context()
        );
    }
    // Attempts beyond the limit only count delays; without this the walk would not end.
    if world.unit.is_leaving() {
        world.unit.attempts = world.unit.attempts.min(1);
    }
    Some(world)
}

fn successors(world: &World) -> Vec<World> {
    let mut next = Vec::new();
    let mut go = |change: &dyn Fn(&mut World) -> Step| {
        let mut copy = *world;
        let step = change(&mut copy);
        next.extend(check(world, copy, step));
    };
    go(&|world| {
        let again = world.removed;
        world.removed = true;
        let step = world.unit.remove();
        assert!(
            !again || step == Step::Wait,
            "a second Remove is answered twice"
        );
        step
    });
    go(&|world| world.unit.give_up());
    go(&|world| {
        let installed = world.unit.life() == Life::Installed;
        let step = world.unit.evict();
        assert_eq!(step == Step::Write, installed, "{world:?}");
        step
    });
    match world.unit.flight {
        None => {
            go(&|world| {
                world.unit.send();
                Step::Wait
            });
            // A restart, or another controller's doing, that is noticed by reading back.
            for a in TRUTHS {
                for b in TRUTHS {
                    go(&|world| {
                        world.truth = [a, b];
                        world.unit.read_back(read([a, b]))
                    });
                }
            }
        }
        Some([a, b]) => {
            go(&|world| world.unit.read_back([Presence::Absent; 2]));
            for (first, first_truth) in answers(a, world.truth[0]) {
                for (second, second_truth) in answers(b, world.truth[1]) {
                    go(&|world| {
                        world.truth = [first_truth, second_truth];
                        world.unit.acknowledge([first, second])
                    });
                }
            }
        }
    }
    next
}

fn reachable() -> HashSet<World> {
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([World {
        unit: Unit::new(),
        truth: [Truth::Empty; 2],
        removed: false,
    }]);
    while let Some(world) = open.pop_front() {
        if seen.insert(world) {
            open.extend(successors(&world));
        }
    }
    seen
}

#[test]
fn an_adopted_unit_is_as_one_that_was_installed() {
    let world = World {
        unit: Unit::adopted(),
        truth: [Truth::Right; 2],
        removed: false,
    };
    assert!(reachable().contains(&world));
}

/// What a switch without faults answers.
fn healthy(op: Option<Op>, truth: Truth) -> (Outcome, Truth) {
    match (op, truth) {
        (None, _) => (Outcome::Done, truth),
        (Some(Op::Insert), Truth::Empty) => (Outcome::Done, Truth::Right),
        (Some(Op::Insert), _) => (Outcome::AlreadyExists, truth),
        (Some(Op::Modify | Op::Delete), Truth::Empty) => (Outcome::NotFound, truth),
        (Some(Op::Modify), _) => (Outcome::Done, Truth::Right),
        (Some(Op::Delete), _) => (Outcome::Done, Truth::Empty),
    }
}

/// Lets the switch answer without faults until the unit rests or ends.
fn run(mut world: World, mut step: Step) -> (World, Step) {
    for _ in 0..8 {
        if !world.unit.in_flight() && world.unit.send().is_none() {
            return (world, step);
        }
        let ops = world.unit.flight.unwrap();
        let first = healthy(ops[0], world.truth[0]);
        let second = healthy(ops[1], world.truth[1]);
        world.truth = [first.1, second.1];
        step = world.unit.acknowledge([first.0, second.0]);
        if matches!(
            step,
            Step::Refused(_) | Step::Lost | Step::Evicted | Step::Gone | Step::Installed
        ) {
            return (world, step);
        }
    }
    panic!("does not come to rest: {world:?}");
}

#[test]
fn no_event_in_any_state_leaves_half_a_pair_or_a_wrong_answer() {
    let worlds = reachable();
    // The walk is worth something only if it gets everywhere.
    for life in [
        Life::Queued,
        Life::Installing,
        Life::Installed,
        Life::Removing,
    ] {
        assert!(
            worlds.iter().any(|world| world.unit.life() == life),
            "{life:?}"
        );
    }
    let presences = [
        Presence::Absent,
        Presence::Present,
        Presence::Stale,
        Presence::Unknown,
    ];
    for a in presences {
        for b in presences {
            assert!(
                worlds.iter().any(|world| world.unit.hardware == [a, b]),
                "{a:?} {b:?}"
            );
        }
    }
    assert!(worlds.len() > 1_000, "{}", worlds.len());
}

/// What happens to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Send,
    Acknowledge(Outcome, Outcome),
    Remove,
    Evict,
    GiveUp,
    ReadBack(Presence, Presence),
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Done,
    Outcome::AlreadyExists,
    Outcome::NotFound,
    Outcome::TableFull,
    Outcome::Rejected,
    Outcome::Retry,
    Outcome::Failed,
    Outcome::Unknown,
];

fn all_events() -> Vec<Event> {
    let outcomes = OUTCOMES.map(|a| OUTCOMES.map(|b| Event::Acknowledge(a, b)));
    let known = [Presence::Absent, Presence::Present, Presence::Stale];
    let read = known.map(|a| known.map(|b| Event::ReadBack(a, b)));
    [Event::Send, Event::Remove, Event::Evict, Event::GiveUp]
        .into_iter()
        .chain(outcomes.into_iter().flatten())
        .chain(read.into_iter().flatten())
        .collect()
}

fn apply(unit: &mut Unit, event: Event) -> Step {
    match event {
        Event::Send => {
            unit.send();
            Step::Wait
        }
        Event::Acknowledge(a, b) => unit.acknowledge([a, b]),
        Event::Remove => unit.remove(),
        Event::Evict => unit.evict(),
        Event::GiveUp => unit.give_up(),
        Event::ReadBack(a, b) => unit.read_back([a, b]),
    }
}

/// Every pair of events in every state that a switch can lead to, answers that no switch should
/// give among them: a unit is never forgotten while a write of it is in flight or it may be in
/// hardware, and after a removal it ends as gone and as nothing else.
#[test]
fn every_pair_of_events_in_every_state() {
    let units: HashSet<Unit> = reachable().iter().map(|world| world.unit).collect();
    let events = all_events();
    let mut pairs = 0_u64;
    for start in &units {
        for first in &events {
            let mut unit = *start;
            let step = apply(&mut unit, *first);
            holds(start, &unit, step, *first);
            if is_end(step) {
                continue;
            }
            for second in &events {
                let mut next = unit;
                let step = apply(&mut next, *second);
                holds(&unit, &next, step, *second);
                pairs += 1;
            }
        }
    }
    assert!(pairs > 1_000_000, "{pairs}");
}

const fn is_end(step: Step) -> bool {
    matches!(
        step,
        Step::Refused(_) | Step::Lost | Step::Evicted | Step::Gone
    )
}

fn holds(before: &Unit, after: &Unit, step: Step, event: Event) {
    let context = || format!("{before:?}, {event:?}: {step:?}, {after:?}");
    if is_end(step) {
        assert!(!after.in_flight(), "{}", context());
        assert_eq!(after.hardware, [Presence::Absent; 2], "{}", context());
        assert_eq!(step == Step::Gone, after.goal == Goal::Out, "{}", context());
        let evicted = after.goal == Goal::Evict;
        assert_eq!(step == Step::Evicted, evicted, "{}", context());
    }
    if step == Step::Installed {
        assert_eq!(after.life(), Life::Installed, "{}", context());
        assert!(!before.is_announced(), "{}", context());
    }
    if before.goal == Goal::Out {
        assert_eq!(after.goal, Goal::Out, "{}", context());
    }
    if before.is_leaving() {
        assert!(after.is_leaving(), "{}", context());
    }
    // No second write of what is in flight.
    if event == Event::Send && before.in_flight() {
        assert_eq!(before, after, "{}", context());
    }
}

#[test]
fn from_every_state_remove_ends_in_gone() {
    for mut world in reachable() {
        let step = match world.unit.remove() {
            Step::Gone => Step::Gone,
            step => run(world, step).1,
        };
        assert_eq!(step, Step::Gone, "{world:?}");
    }
}

#[test]
fn from_every_state_a_healthy_switch_brings_rest() {
    for world in reachable() {
        let (rest, step) = run(world, Step::Wait);
        match step {
            Step::Gone | Step::Refused(_) | Step::Lost | Step::Evicted => {
                assert_eq!(rest.truth, [Truth::Empty; 2]);
            }
            _ => assert_eq!(rest.truth, [Truth::Right; 2], "{world:?}"),
        }
    }
}

#[test]
fn a_left_over_is_overwritten() {
    let mut unit = Unit::new();
    assert_eq!(unit.send(), Some([Some(Op::Insert); 2]));
    assert_eq!(
        unit.acknowledge([Outcome::AlreadyExists, Outcome::Done]),
        Step::Write
    );
    assert_eq!(unit.send(), Some([Some(Op::Modify), None]));
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::Done]),
        Step::Installed
    );
}

#[test]
fn half_an_install_is_undone() {
    let mut unit = Unit::new();
    unit.send();
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::TableFull]),
        Step::Write
    );
    assert_eq!(unit.send(), Some([Some(Op::Delete), None]));
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::Done]),
        Step::Refused(RefuseReason::TableFull)
    );
}

#[test]
fn remove_waits_for_the_insert_s_answer() {
    let mut unit = Unit::new();
    unit.send();
    assert_eq!(unit.remove(), Step::Wait);
    assert_eq!(unit.remove(), Step::Wait);
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::Done]),
        Step::Write
    );
    assert_eq!(unit.send(), Some([Some(Op::Delete); 2]));
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::NotFound]),
        Step::Gone
    );
}

#[test]
fn an_install_is_not_tried_for_ever() {
    let mut unit = Unit::new();
    for _ in 0..INSTALL_ATTEMPTS_MAX {
        unit.send();
        assert_eq!(unit.acknowledge([Outcome::Retry; 2]), Step::WriteLater);
    }
    unit.send();
    assert_eq!(
        unit.acknowledge([Outcome::Retry; 2]),
        Step::Refused(RefuseReason::Unavailable)
    );
}

#[test]
fn a_switch_that_fails_without_a_reason_is_believed_soon() {
    let mut unit = Unit::new();
    for _ in 0..FAILED_ATTEMPTS_MAX {
        unit.send();
        assert_eq!(
            unit.acknowledge([Outcome::Done, Outcome::Failed]),
            Step::WriteLater
        );
    }
    unit.send();
    // What it did is not known: both are deleted.
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::Failed]),
        Step::WriteLater
    );
    assert_eq!(unit.send(), Some([Some(Op::Delete); 2]));
    let refused = Step::Refused(RefuseReason::Failed);
    assert_eq!(
        unit.acknowledge([Outcome::Done, Outcome::NotFound]),
        refused
    );
}

#[test]
fn what_the_switch_lost_is_put_back_or_reported() {
    let mut unit = Unit::new();
    unit.send();
    assert_eq!(unit.acknowledge([Outcome::Done; 2]), Step::Installed);
    assert_eq!(unit.read_back([Presence::Absent; 2]), Step::Write);
    unit.send();
    assert_eq!(unit.acknowledge([Outcome::Done; 2]), Step::Wait);
    assert_eq!(unit.read_back([Presence::Absent; 2]), Step::Write);
    unit.send();
    assert_eq!(unit.acknowledge([Outcome::TableFull; 2]), Step::Lost);
}

#[test]
fn an_orphan_is_removed() {
    let mut unit = Unit::orphan();
    assert_eq!(unit.send(), Some([Some(Op::Delete), None]));
    assert_eq!(unit.acknowledge([Outcome::Done; 2]), Step::Gone);
}
