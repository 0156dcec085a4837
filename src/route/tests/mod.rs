mod aggregate;
mod differential;
mod files;
mod rules;

use bytes::Bytes;

use super::{Output, Route, Routed, read};
use crate::expr::Input;
use crate::record::Record;

fn record(value: &str, headers: &[(&str, &str)]) -> Record {
    Record {
        offset: 7,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"k1")),
        value: Some(Bytes::from(value.to_owned())),
        headers: headers.iter().map(|(name, value)| (name, Some(value))).collect(),
    }
}

fn route(file: &str) -> Route {
    let specs = read(file).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    Route::compile(&specs[0]).unwrap()
}

fn routed(route: &Route, record: &Record) -> Routed {
    route.route(&Input { topic: "in", partition: 2, offset: record.offset, record })
}

fn field(output: &Output, name: &str) -> Option<String> {
    let found = output.headers.iter().find(|header| header.name == name.as_bytes())?;
    Some(String::from_utf8(found.value.unwrap_or_default().to_vec()).unwrap())
}

/// `topic=value`, in order.
fn places(routed: &Routed) -> Vec<String> {
    let text = |output: &Output| String::from_utf8(output.value.clone().unwrap_or_default().to_vec()).unwrap();
    routed.outputs.iter().map(|output| format!("{}={}", output.topic, text(output))).collect()
}
