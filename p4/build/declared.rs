// The declarations of the typed tables, as data: the very `table!` invocations of `src/tables`,
// which yield types in the crate. Part of the build script; the crate's tests include it too.

macro_rules! table {
    (
        $(#[$table_doc:meta])*
        $table:ident => $entry:ident, $mode:ident;
        $(#[$key_doc:meta])*
        key $key:ident {
            $($(#[$field_doc:meta])* $field:ident: $field_type:ty = $kind:ident $bits:literal),* $(,)?
        }
        $(#[$actions_doc:meta])*
        action $actions:ident {
            $($(#[$action_doc:meta])* $variant:ident = $action:ident $({
                $($(#[$param_doc:meta])* $param:ident: $param_type:ty = $param_bits:literal),* $(,)?
            })?),* $(,)?
        }
    ) => {
        pub(super) const DECLARED: super::super::check::Table = super::super::check::Table {
            name: stringify!($table),
            mode: stringify!($mode),
            fields: &[$((stringify!($field), stringify!($kind), $bits)),*],
            actions: &[$(super::super::check::Action {
                name: stringify!($action),
                params: &[$($((stringify!($param), $param_bits)),*)?],
            }),*],
        };
    };
}

macro_rules! declared {
    ($($path:literal $table:ident;)*) => {
        $(#[path = $path] mod $table;)*
        /// Every table that a Rust type declares.
        pub(crate) const DECLARED: &[super::check::Table] = &[$($table::DECLARED),*];
    };
}

declared! {
    "../src/tables/classify_port.rs" classify_port;
    "../src/tables/classify_vxlan.rs" classify_vxlan;
    "../src/tables/ecmp.rs" ecmp;
    "../src/tables/egress_interface.rs" egress_interface;
    "../src/tables/flow4.rs" flow4;
    "../src/tables/flow6.rs" flow6;
    "../src/tables/neighbor4.rs" neighbor4;
    "../src/tables/neighbor6.rs" neighbor6;
    "../src/tables/nexthop.rs" nexthop;
    "../src/tables/punt.rs" punt;
    "../src/tables/route4.rs" route4;
    "../src/tables/route6.rs" route6;
}
