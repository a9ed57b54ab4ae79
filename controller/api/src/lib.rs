//! The daemon's gRPC API: messages, client and server stubs.
