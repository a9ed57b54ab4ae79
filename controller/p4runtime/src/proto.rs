//! The generated messages and service, under the names of their proto packages.

/// The serialised `FileDescriptorSet` of every message in this crate, for gRPC
/// reflection and for text and JSON formats.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/p4runtime.bin"));

/// Package `p4`.
pub mod p4 {
    /// Package `p4.v1`: the P4Runtime service and its entities.
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/p4.v1.rs"));
    }

    /// Package `p4.config`.
    pub mod config {
        /// Package `p4.config.v1`: P4Info and the types it describes.
        #[allow(missing_docs, clippy::all, clippy::pedantic)]
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/p4.config.v1.rs"));
        }
    }
}

/// Package `google`.
pub mod google {
    /// Package `google.rpc`: the gRPC error model.
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
    }
}
