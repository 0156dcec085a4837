//! One file of the simulated disk: what is surely on the platter, what reads see, and what is between them.

use std::collections::BTreeMap;

const SECTOR: usize = 512;

#[derive(Clone)]
pub(super) enum Pending {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    /// Directory of entries instead of bytes.
    pub(super) rot: BTreeMap<usize, u8>,
}

impl Inode {
    pub(super) fn apply(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
        if bytes.len() < at + data.len() {
            bytes.resize(at + data.len(), 0);
        }
        bytes[at..at + data.len()].copy_from_slice(data);
    }

    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng, mood: f64) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::SetLen(length) => {
                    if rng.f64() < mood {
                        self.durable.resize(length, 0);
                    }
                }
                Pending::Write(at, data) => {
                    // Sector by sector; the length may have grown even where the data did not arrive.
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((at + from) / SECTOR + 1) * SECTOR - at).min(data.len());
                        if rng.f64() < mood {
                            Self::apply(&mut self.durable, at + from, &data[from..to]);
                        } else if rng.f64() < mood && self.durable.len() < at + to {
                            self.durable.resize(at + to, 0);
                        }
                        from = to;
                    }
                }
            }
        }
        self.current = self.durable.clone();
    }
}
