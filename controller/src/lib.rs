//! The shunt daemon: configuration, kernel mirror, switch reconciler, API.

pub mod config;
pub mod exception;
pub mod kernel;
pub mod switch;
