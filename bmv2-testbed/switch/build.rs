//! Generates the P4Runtime service as this server wants it: with a codec of its own for `Write`
//! and `Read`, whose large messages are decoded and encoded by hand.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

const MESSAGES: &str = "p4runtime::p4::v1";

/// A call with the generated messages.
fn call(name: &str, route: &str) -> MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("{MESSAGES}::{route}Request"))
        .output_type(format!("{MESSAGES}::{route}Response"))
        .codec_path("tonic_prost::ProstCodec")
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");

    let write = call("write", "Write")
        .input_type("bytes::Bytes")
        .codec_path("crate::server::codec::WriteCodec");
    let read = call("read", "Read")
        .output_type("bytes::Bytes")
        .codec_path("crate::server::codec::ReadCodec")
        .server_streaming();
    let stream = call("stream_channel", "StreamChannel")
        .input_type(format!("{MESSAGES}::StreamMessageRequest"))
        .output_type(format!("{MESSAGES}::StreamMessageResponse"))
        .client_streaming()
        .server_streaming();
    let set = "set_forwarding_pipeline_config";
    let get = "get_forwarding_pipeline_config";
    let service = Service::builder()
        .name("P4Runtime")
        .package("p4.v1")
        .method(write.build())
        .method(read.build())
        .method(call(set, "SetForwardingPipelineConfig").build())
        .method(call(get, "GetForwardingPipelineConfig").build())
        .method(stream.build())
        .method(call("capabilities", "Capabilities").build())
        .build();
    Builder::new().build_client(false).compile(&[service]);
}
