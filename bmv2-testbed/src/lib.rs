//! Topologies in network namespaces, traffic and the demo.
