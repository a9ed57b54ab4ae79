//! Codecs of the two calls whose messages are large: `Write` requests arrive as bytes, and
//! `Read` answers leave as bytes.

use bytes::{Buf, BufMut, Bytes};
use p4runtime::p4::v1 as pb;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Of `Write`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteCodec;

/// Of `Read`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadCodec;

/// A message as its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw;

impl Codec for WriteCodec {
    type Encode = pb::WriteResponse;
    type Decode = Bytes;
    type Encoder = ProstEncoder<pb::WriteResponse>;
    type Decoder = Raw;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<pb::WriteResponse, pb::WriteRequest>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Codec for ReadCodec {
    type Encode = Bytes;
    type Decode = pb::ReadRequest;
    type Encoder = Raw;
    type Decoder = ProstDecoder<pb::ReadRequest>;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<pb::ReadResponse, pb::ReadRequest>::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.len());
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
