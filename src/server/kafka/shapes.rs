//! The shapes of the requests that are answered, from Kafka's message schemas.

use super::shape::{Field, I8, I16, I32, I64, Kind, TEXT, UUID, always, from, within};
use Kind::{List, Many};

pub const METADATA: &[Field] =
    &[always(List(&[from(10, UUID), always(TEXT)])), from(4, I8), within(8, 10, I8), from(8, I8)];

pub const LIST_OFFSETS: &[Field] = &[
    always(I32),
    from(2, I8),
    always(List(&[always(TEXT), always(List(&[always(I32), from(4, I32), always(I64)]))])),
    from(10, I32),
];

pub const CREATE_TOPICS: &[Field] = &[
    always(List(&[
        always(TEXT),
        always(I32),
        always(I16),
        always(List(&[always(I32), always(Many(&I32))])),
        always(List(&[always(TEXT), always(TEXT)])),
    ])),
    always(I32),
    always(I8),
];

pub const DELETE_TOPICS: &[Field] =
    &[from(6, List(&[always(TEXT), always(UUID)])), within(1, 5, Many(&TEXT)), always(I32)];

pub const INIT_PRODUCER_ID: &[Field] = &[always(TEXT), always(I32), from(3, I64), from(3, I16)];

pub const DESCRIBE_CLUSTER: &[Field] = &[always(I8), from(1, I8)];
