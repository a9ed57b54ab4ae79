//! The shunt daemon: configuration, kernel mirror, switch reconciler, API.
