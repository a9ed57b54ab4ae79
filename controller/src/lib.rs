//! The shunt daemon: configuration, kernel mirror, switch reconciler, API.

pub mod adopt;
pub mod api;
pub mod config;
pub mod daemon;
pub mod exception;
pub mod gates;
pub mod hardware;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod pools;
pub mod pump;
pub mod service;
pub mod store;
pub mod switch;
pub mod taps;
