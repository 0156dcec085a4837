//! Requests of any content, decoded as the listener decodes them: for fuzz targets and tests. Not there otherwise.

use bytes::{BufMut, BytesMut};

use super::api::{APIS, Api};
use super::framing::KafkaFraming;
use super::requests;
use super::session::Hangup;
use crate::server::frames::Framing;

/// Bytes of the largest request of a stream.
const FRAME_BYTES: usize = 1024 * 1024;

/// A whole request without its length: the head, and this body.
pub fn request(api: &Api, version: i16, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(body.len() + 16);
    for number in [api.key, version] {
        out.put_i16(number);
    }
    out.put_i32(7);
    out.put_i16(1);
    out.put_u8(b'c');
    if api.is_flexible(version) {
        out.put_u8(0);
    }
    out.put_slice(body);
    out
}

/// Decodes a request of the kind with this name: its version is what the first byte says, and the others are its body.
pub fn decode(name: &str, data: &[u8]) {
    let Some(api) = APIS.iter().find(|api| api.name == name) else { panic!("no request is called {name}") };
    let Some((&choice, body)) = data.split_first() else { return };
    let version = api.min + i16::from(choice) % (api.max - api.min + 1);
    no_fault(requests::decode(request(api, version, body)));
}

/// Decodes a stream of requests: lengths, heads and bodies of any kind.
pub fn decode_stream(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    let mut framing = KafkaFraming { max_frame: FRAME_BYTES };
    while let Ok(Some((frame, _))) = framing.take(&mut buffer) {
        no_fault(requests::decode(frame));
    }
}

fn no_fault(outcome: Result<(), Hangup>) {
    if let Err(Hangup::Fault(fault)) = outcome {
        panic!("{fault}");
    }
}
