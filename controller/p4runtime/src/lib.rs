//! P4Runtime protocol: messages, P4Info model, canonical values and an async client.
