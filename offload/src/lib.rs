//! From a worker's decision to an acknowledged hardware entry and back.
