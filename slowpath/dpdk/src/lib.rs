//! A thin safe binding to DPDK.
