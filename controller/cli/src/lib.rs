//! The shunt command line.
