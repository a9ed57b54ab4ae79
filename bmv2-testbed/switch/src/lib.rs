//! An embedded v1model switch: executes p4c's bmv2 JSON, serves P4Runtime.
