//! The slow path: workers, packet walk, connection tracking, NAT.
