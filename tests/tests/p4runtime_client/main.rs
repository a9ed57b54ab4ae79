//! The P4Runtime client against real switches: bmv2 where it is on PATH, and the embedded one, to
//! the specification and departing from it in the ways that real servers do. Each in a sandbox,
//! for `--grpc-server-addr` is a port.
//!
//! What clients are known to get wrong, and where it is tested:
//!
//! | | trap | test |
//! |---|---|---|
//! | 1 | values: shortest form out, padding in, compare canonical ones only | `values_leave_in_their_shortest_form`, `a_large_table_reads_back_as_it_was_written` |
//! | 2 | an election id in use, a backup, no primary: three different answers | `the_highest_election_id_is_the_primary`, `a_backup_is_told_when_the_primary_leaves` |
//! | 3 | nobody is promoted when the primary leaves, except where the server does so | `a_backup_is_told_when_the_primary_leaves` |
//! | 4 | no election id is not the id 0; a device is not 0 | `zero_is_an_election_id`, `who_is_primary_is_asked_without_becoming_it`, `many_ask_at_once_who_is_primary`; `device_zero_is_refused` (crate `p4runtime`) |
//! | 5 | roles, where there are any; the default role is unset; a stream keeps its role | `a_role_has_a_primary_of_its_own`; `the_role_is_a_string_and_the_default_role_stays_unset` (crate `p4runtime`; a client's role cannot change) |
//! | 6 | a Write is refused for the device, then the role, then the pipeline | `a_refusal_names_what_to_do` |
//! | 7 | a batch may be reordered, or end with its first error | `dependent_updates_are_written_in_order`, `refusals_name_their_updates` (stopping at the first error) |
//! | 8 | one result for each update, in order, or none at all | `refusals_name_their_updates`, `a_full_table_is_told_to_who_asked` |
//! | 9 | results of a full batch do not fit the usual trailer | `refusals_name_their_updates` |
//! | 10 | a whole table in one message, more than 4 MiB | `a_large_table_reads_back_as_it_was_written` |
//! | 11 | a wildcard leaves out default entries, and takes no filter | `a_wildcard_read_leaves_out_default_entries` |
//! | 12 | when there is a priority, and that it is part of the key | `the_priority_is_part_of_the_key` |
//! | 13 | a match of everything is left out, masked-off bits are 0 | `a_match_of_everything_is_left_out` |
//! | 14 | default entries are modified and reset, constants are refused | `a_default_entry_is_modified_and_reset` |
//! | 15 | MODIFY replaces, DELETE looks at the key | `a_modification_replaces_the_whole_entry` |
//! | 16 | one-shot sets read back as such; no pipeline has two forms | `a_one_shot_set_reads_back_as_one`, `a_pipeline_is_pushed_and_its_cookie_comes_back` |
//! | 17 | commit needs what was saved, reconciling is optional, cookies come back | `a_saved_pipeline_is_committed`, `a_pipeline_is_reconciled_where_that_is_offered`, `a_pipeline_is_pushed_and_its_cookie_comes_back` |
//! | 18 | idle entries are reported again; idle times come when asked for | `an_idle_entry_is_reported_again` |
//! | 19 | acknowledged digests are sent again, others wait | `an_acknowledged_digest_is_sent_again` |
//! | 20 | a replica's port in either of its forms | `replicas_have_the_ports_that_were_given` |
//! | | who writes by hand takes no running controller's role | `a_controller_keeps_its_role` |
//! | | what a server does not offer can be told apart and gone without | `what_is_not_offered_is_told_apart` |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod by_hand;
mod election;
mod entries;
mod notices;
mod pipeline;
mod reading;
mod switch;
mod writing;

macro_rules! on_each_switch {
    ($($module:ident :: $body:ident)*) => {
        on_each_switch! { bmv2 = Bmv2; $($module::$body)* }
        on_each_switch! { embedded = Embedded; $($module::$body)* }
        on_each_switch! { as_pi = Deviating("pi,pad-bytes"); $($module::$body)* }
        on_each_switch! {
            as_others = Deviating("first-error,pad-bytes,promote"); $($module::$body)*
        }
    };
    ($name:ident = $kind:ident $(($how:literal))?; $($module:ident :: $body:ident)*) => {
        mod $name {
            use super::switch::{Kind, on};
            const KIND: Kind = Kind::$kind $(($how))?;
            $(#[test]
            fn $body() {
                let name = concat!(stringify!($name), "::", stringify!($body));
                on(KIND, name, super::$module::$body);
            })*
        }
    };
}

on_each_switch! {
    election::the_highest_election_id_is_the_primary
    election::who_is_primary_is_asked_without_becoming_it
    election::a_primary_may_bid_again
    election::many_ask_at_once_who_is_primary
    election::a_backup_is_told_when_the_primary_leaves
    election::zero_is_an_election_id
    election::a_role_has_a_primary_of_its_own
    election::a_refusal_names_what_to_do
    election::a_restarted_switch_is_found_empty
    pipeline::a_pipeline_is_pushed_and_its_cookie_comes_back
    pipeline::a_saved_pipeline_is_committed
    pipeline::a_pipeline_is_reconciled_where_that_is_offered
    writing::dependent_updates_are_written_in_order
    writing::refusals_name_their_updates
    writing::a_full_table_is_told_to_who_asked
    writing::several_writes_are_in_flight_at_once
    reading::a_large_table_reads_back_as_it_was_written
    reading::a_wildcard_read_leaves_out_default_entries
    reading::what_is_not_offered_is_told_apart
    reading::values_leave_in_their_shortest_form
    entries::the_priority_is_part_of_the_key
    entries::a_match_of_everything_is_left_out
    entries::a_default_entry_is_modified_and_reset
    entries::a_modification_replaces_the_whole_entry
    entries::a_one_shot_set_reads_back_as_one
    entries::replicas_have_the_ports_that_were_given
    notices::an_idle_entry_is_reported_again
    notices::an_acknowledged_digest_is_sent_again
    by_hand::a_state_is_exported_and_brought_back
    by_hand::a_switch_is_looked_at
    by_hand::a_controller_keeps_its_role
}
